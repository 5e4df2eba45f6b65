"""Active sites of a sparse tensor, and the kernel maps between them.

Sites are in ascending key order, unique, and never change. What is known about them is kept with them: a submanifold
map is built once for all layers on the same sites, and sites that a strided layer made remember the map that they came
by, which an inverse convolution walks back. Sites live as long as a tensor on them does, so maps live with one forward
pass. Sites know their origin and not what was made of them (but for weak references), so nothing waits for the garbage
collector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from .._checks import check_tensor
from ..coords import num_cells, pack, split_keys
from .backends import backend_for
from .geometry import Geometry, Triple, lift
from .kernel_map import KernelMap

MAX_ROWS = 2**31 - 1  # rows are numbered in int32


@dataclass(frozen=True, eq=False)
class Origin:
    """How sites were made: ``kernel_map`` takes rows of ``parent`` to rows of these."""

    parent: Sites
    kernel_map: KernelMap


class Sites:
    """Active sites of a batch of grids; immutable.

    Args:
        indices: ``[N, 4]`` int32 ``(batch, z, y, x)``, or ``[N, 3]`` int32 ``(batch, y, x)``, ascending and unique.
        spatial_shape: sites ``(z, y, x)`` or ``(y, x)`` of a grid.
        batch_size: number of samples, empty ones included.

    Raises:
        ValueError: if the indices have another form, lie outside the grid, are not in ascending order or not unique,
            or the grid is too large for int64 keys.
    """

    def __init__(self, indices: Tensor, spatial_shape: Sequence[int], batch_size: int) -> None:
        shape = check_shape(spatial_shape)
        check_indices(indices, len(shape))
        keys = site_keys(indices, shape, batch_size)
        steps = keys.diff()
        if bool((steps <= 0).any()):
            fault = f"{int((steps == 0).sum())} repeated rows" if bool((steps >= 0).all()) else "another order"
            raise ValueError(
                "indices: expected unique rows in ascending order of (batch, z, y, x), "
                f"got {fault}; SparseTensor.coalesce sorts rows and sums repeated ones"
            )
        self._fill(indices, keys, shape, batch_size, None)

    @classmethod
    def from_keys(
        cls,
        keys: Tensor,
        spatial_shape: tuple[int, ...],
        batch_size: int,
        origin: Origin | None = None,
        coords: Tensor | None = None,
    ) -> Sites:
        """Return the sites of ascending unique keys ``[N]`` int64, unchecked; ``coords`` are theirs, where known."""
        sites = cls.__new__(cls)
        coords = split_keys(keys, lift(spatial_shape, 1)) if coords is None else coords
        indices = coords if len(spatial_shape) == 3 else coords[:, [0, 2, 3]]
        sites._fill(indices, keys, spatial_shape, batch_size, origin)
        return sites

    def _fill(
        self, indices: Tensor, keys: Tensor, spatial_shape: tuple[int, ...], batch_size: int, origin: Origin | None
    ) -> None:
        if len(keys) > MAX_ROWS:
            raise ValueError(f"indices: at most 2**31 - 1 rows, got {len(keys)}")
        self.indices = indices
        self.keys = keys
        self.spatial_shape = spatial_shape
        self.batch_size = batch_size
        self.origin = origin
        self._submanifold: dict[Geometry, KernelMap] = {}
        self._made: WeakValueDictionary[tuple, Sites] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"Sites({len(self)} rows, spatial_shape={self.spatial_shape}, batch_size={self.batch_size})"

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return len(self.spatial_shape)

    @property
    def volume(self) -> Triple:
        """Extents ``(z, y, x)``, with one layer for a grid of two dimensions."""
        return lift(self.spatial_shape, 1)

    @property
    def coords(self) -> Tensor:
        """Indices ``[N, 4]`` int32 ``(batch, z, y, x)``, with z = 0 for a grid of two dimensions."""
        return as_coords(self.indices)

    def to(self, device: torch.device | str) -> Sites:
        """Return the same sites on a device, without their maps."""
        if self.keys.device == torch.device(device):
            return self
        return Sites.from_keys(self.keys.to(device), self.spatial_shape, self.batch_size)

    def submanifold_map(self, geometry: Geometry) -> KernelMap:
        """Return the map from these sites to themselves."""
        if geometry not in self._submanifold:
            backend = backend_for(self.keys.device)
            self._submanifold[geometry] = backend.match(self.keys, self.volume, self.coords, geometry, True)
        return self._submanifold[geometry]

    def coarsen(self, geometry: Geometry) -> Sites:
        """Return the sites that a convolution reaches from these; their origin holds the map."""
        return self._make((geometry, None), geometry.coarse_shape(self.volume))

    def refine(self, geometry: Geometry, output_padding: Triple) -> Sites:
        """Return the sites that a transposed convolution reaches from these; their origin holds the map."""
        return self._make((geometry, output_padding), geometry.fine_shape(self.volume, output_padding))

    def _make(self, key: tuple[Geometry, Triple | None], volume: Triple) -> Sites:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._reach(key[0], volume, to_coarse=key[1] is None)
        return made

    def _reach(self, geometry: Geometry, volume: Triple, to_coarse: bool) -> Sites:
        backend = backend_for(self.keys.device)
        num_cells(volume, self.batch_size)
        reach = backend.coarse_keys if to_coarse else backend.fine_keys
        keys = reach(self.coords, geometry, volume, self.batch_size)
        coords = split_keys(keys, volume)
        if to_coarse:
            kernel_map = backend.match(self.keys, self.volume, coords, geometry, False)
        else:
            kernel_map = backend.match(keys, volume, self.coords, geometry, False).transpose()
        return Sites.from_keys(keys, volume[3 - self.ndim :], self.batch_size, Origin(self, kernel_map), coords)


def check_shape(spatial_shape: Sequence[int]) -> tuple[int, ...]:
    """Return a spatial shape as a tuple.

    Raises:
        ValueError: if it is not one of two or three dimensions.
    """
    shape = tuple(int(extent) for extent in spatial_shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"spatial_shape: expected extents (z, y, x) or (y, x), got {shape}")
    return shape


def check_indices(indices: Tensor, ndim: int) -> None:
    """Raise ``ValueError`` unless indices are ``[N, 1 + ndim]`` int32."""
    check_tensor("indices", indices, (None, 1 + ndim), (torch.int32,))


def site_keys(indices: Tensor, spatial_shape: tuple[int, ...], batch_size: int) -> Tensor:
    """Return the keys ``[N]`` int64 of indices in two or three dimensions, checked against the grid."""
    return pack(as_coords(indices), lift(spatial_shape, 1), batch_size)


def as_coords(indices: Tensor) -> Tensor:
    """Return indices ``[N, 3 or 4]`` as ``[N, 4]`` ``(batch, z, y, x)``."""
    if indices.shape[1] == 4:
        return indices
    return torch.stack([indices[:, 0], torch.zeros_like(indices[:, 0]), indices[:, 1], indices[:, 2]], dim=1)
