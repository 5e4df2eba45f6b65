"""The voxel grid: the one source of every size in a config.

index(p) = floor((p - lower) / voxel_size)      shape = round((upper - lower) / voxel_size)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparse3d_ops import grid_shape


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid in the LiDAR frame.

    Args:
        point_range: ``(x0, y0, z0, x1, y1, z1)`` in metres; the upper bound is excluded.
        voxel_size: ``(x, y, z)`` in metres.
        stride: voxels per cell of the head's bird's-eye map, along x and y.

    Raises:
        ValueError: if the range is empty, is no whole number of voxels, or is not divisible by the stride.
    """

    point_range: tuple[float, float, float, float, float, float]
    voxel_size: tuple[float, float, float]
    stride: int = 1

    def __post_init__(self) -> None:
        """Freeze the sequences and check that the numbers describe a grid."""
        object.__setattr__(self, "point_range", _floats("point_range", self.point_range, 6))
        object.__setattr__(self, "voxel_size", _floats("voxel_size", self.voxel_size, 3))
        try:
            grid_shape(self.point_range, self.voxel_size)
        except ValueError as error:
            raise ValueError(f"Grid: {error}") from error
        if self.stride < 1 or any(n % self.stride for n in self.bev_shape):
            raise ValueError(f"Grid: bird's-eye shape {self.bev_shape} (y, x) is not divisible by stride {self.stride}")

    @classmethod
    def build(cls, grid: Grid | Mapping[str, Any]) -> Grid:
        """Return ``grid`` itself, or build it from the ``grid = dict(...)`` of a config."""
        if isinstance(grid, cls):
            return grid
        if isinstance(grid, Mapping):
            return cls(**grid)
        raise TypeError(
            f"a grid must be a Grid or a dict of its arguments, got {grid!r}; "
            'configs with "$grid" are read by sparse3d.config.load_config'
        )

    @property
    def lower(self) -> tuple[float, float, float]:
        """Lower corner ``(x, y, z)`` in metres."""
        return self.point_range[:3]

    @property
    def upper(self) -> tuple[float, float, float]:
        """Upper corner ``(x, y, z)`` in metres, excluded."""
        return self.point_range[3:]

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(z, y, x)``."""
        return grid_shape(self.point_range, self.voxel_size)

    @property
    def bev_shape(self) -> tuple[int, int]:
        """Number of voxels ``(y, x)`` seen from above."""
        return self.shape[1:]

    @property
    def out_shape(self) -> tuple[int, int]:
        """Cells ``(y, x)`` of the head's map."""
        y, x = self.bev_shape
        return y // self.stride, x // self.stride

    @property
    def cell_size(self) -> tuple[float, float]:
        """Size ``(x, y)`` of a cell of the head's map in metres."""
        return self.voxel_size[0] * self.stride, self.voxel_size[1] * self.stride


def _floats(name: str, values: Sequence[float], count: int) -> tuple[Any, ...]:
    floats = tuple(float(value) for value in values)
    if len(floats) != count:
        raise ValueError(f"Grid: {name} needs {count} numbers, got {len(floats)}: {floats}")
    return floats
