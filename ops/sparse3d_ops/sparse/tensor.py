"""SparseTensor: features on active sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .._checks import FLOATS, check_same_device, check_tensor
from ..segment import Segments, segment_sum
from .sites import Sites, check_indices, check_shape, site_keys


@dataclass(frozen=True, init=False, eq=False)
class SparseTensor:
    """Rows of features on the active sites of a batch of grids; immutable.

    Rows are in ascending order of ``(batch, z, y, x)``, for every tensor, so rows of two tensors on the same sites
    correspond, whatever backend made them.

    Args:
        features: ``[N, C]`` floating point.
        indices: ``[N, 4]`` int32 ``(batch, z, y, x)``, or ``[N, 3]`` int32 ``(batch, y, x)``, ascending and unique;
            ``SparseTensor.coalesce`` takes others.
        spatial_shape: sites ``(z, y, x)`` or ``(y, x)`` of a grid.
        batch_size: number of samples, empty ones included.

    Raises:
        ValueError: if rows do not match, indices lie outside the grid, are unordered or repeated, or the grid is too
            large for int64 keys.
    """

    features: Tensor
    sites: Sites

    def __init__(self, features: Tensor, indices: Tensor, spatial_shape: Sequence[int], batch_size: int) -> None:
        self._fill(features, Sites(indices, spatial_shape, batch_size))

    @classmethod
    def on(cls, sites: Sites, features: Tensor) -> SparseTensor:
        """Return features ``[N, C]`` on given sites, whose kernel maps they share."""
        tensor = cls.__new__(cls)
        tensor._fill(features, sites)
        return tensor

    def _fill(self, features: Tensor, sites: Sites) -> None:
        check_tensor("features", features, (len(sites), None), FLOATS)
        check_same_device(features=features, indices=sites.keys)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "sites", sites)

    @classmethod
    def coalesce(
        cls,
        features: Tensor,  # [M, C]
        indices: Tensor,  # [M, 4] or [M, 3]
        spatial_shape: Sequence[int],
        batch_size: int,
    ) -> SparseTensor:
        """Return a tensor of rows in any order; rows on one site are summed, in their order, with gradients.

        Raises:
            ValueError: as the constructor, but for order and repetition.
        """
        shape = check_shape(spatial_shape)
        check_indices(indices, len(shape))
        check_tensor("features", features, (len(indices), None), FLOATS)
        keys, rows = torch.unique(site_keys(indices, shape, batch_size), return_inverse=True)
        sums = segment_sum(features, Segments.from_index(rows, len(keys)))
        return cls.on(Sites.from_keys(keys, shape, batch_size), sums)

    @classmethod
    def from_dense(cls, dense: Tensor) -> SparseTensor:
        """Return the sites of ``[B, C, (Z,) Y, X]`` where any channel is not zero (NaN is not zero).

        Raises:
            ValueError: if ``dense`` has another number of dimensions.
        """
        if dense.ndim not in (4, 5):
            raise ValueError(f"dense: expected [B, C, Z, Y, X] or [B, C, Y, X], got {list(dense.shape)}")
        rows = dense.movedim(1, -1)
        indices = (rows != 0).any(dim=-1).nonzero()
        return cls(rows[tuple(indices.T)], indices.int(), dense.shape[2:], len(dense))

    def dense(self) -> Tensor:
        """Return ``[B, C, (Z,) Y, X]``, zeros where there is no site."""
        flat = self.features.new_zeros(self.batch_size * self._num_cells(), self.num_channels)
        filled = flat.index_copy(0, self.sites.keys, self.features)
        return filled.view(self.batch_size, *self.spatial_shape, self.num_channels).movedim(-1, 1)

    def replace_features(self, features: Tensor) -> SparseTensor:
        """Return other features ``[N, D]`` on the same sites."""
        return SparseTensor.on(self.sites, features)

    def to(self, device: torch.device | str) -> SparseTensor:
        """Return the tensor on a device."""
        return SparseTensor.on(self.sites.to(device), self.features.to(device))

    def __add__(self, other: SparseTensor) -> SparseTensor:
        """Return the sum; a site of only one of the tensors keeps its features."""
        return union(self, other)

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        kind = f"{self.num_channels} channels {self.features.dtype} on {self.features.device}"
        return f"SparseTensor({len(self)} rows, {kind}, {self.spatial_shape}, batch_size={self.batch_size})"

    @property
    def indices(self) -> Tensor:
        """``[N, 4]`` int32 ``(batch, z, y, x)`` or ``[N, 3]`` int32 ``(batch, y, x)``."""
        return self.sites.indices

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Sites ``(z, y, x)`` or ``(y, x)`` of a grid."""
        return self.sites.spatial_shape

    @property
    def batch_size(self) -> int:
        """Number of samples, empty ones included."""
        return self.sites.batch_size

    @property
    def num_channels(self) -> int:
        """Number of feature columns C."""
        return self.features.shape[1]

    def _num_cells(self) -> int:
        return reduce(int.__mul__, self.spatial_shape, 1)


def union(*tensors: SparseTensor) -> SparseTensor:
    """Add tensors whose sites may differ.

    Args:
        tensors: one or more, of one grid, batch size, dtype and number of channels.

    Returns:
        The sum on all sites that any of them has. Where all have the same sites object, so has the result, and with it
        its kernel maps.

    Raises:
        ValueError: if there is none, or they do not fit together.
    """
    if not tensors:
        raise ValueError("union: expected at least one tensor")
    first = tensors[0]
    kinds = {(t.spatial_shape, t.batch_size, t.num_channels, t.features.dtype) for t in tensors}
    if len(kinds) > 1:
        raise ValueError(f"union: expected one shape, batch size, number of channels and dtype, got {list(tensors)}")
    if all(tensor.sites is first.sites for tensor in tensors):
        return first.replace_features(reduce(torch.add, [tensor.features for tensor in tensors]))
    features = torch.cat([tensor.features for tensor in tensors])
    indices = torch.cat([tensor.indices for tensor in tensors])
    return SparseTensor.coalesce(features, indices, first.spatial_shape, first.batch_size)
