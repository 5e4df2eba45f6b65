"""What a graph takes that finds its neighbours itself: the voxels' coordinates.

name                        shape                   what
voxel_coords                [voxels_0, 4]           int32 (batch, z, y, x), ascending
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparse3d.structures import Grid

from .named import Feed, Shape


@dataclass(frozen=True)
class CoordIndexing:
    """Voxels as they are.

    Args:
        max_voxels: voxels of a scan at most.
    """

    max_voxels: int
    num_graphs = 1

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` needs besides the number of voxels."""
        return {}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid, max_voxels: int) -> CoordIndexing:
        """Build from what ``to_json`` returned."""
        return cls(max_voxels)

    def __call__(self, coords: Tensor) -> Feed:
        """Return the input for voxels ``[V, 4]``."""
        return Feed({"voxel_coords": coords})

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of the input."""
        return {"voxel_coords": ("voxels_0", 4)}

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output that another graph takes: there is none."""
        return {}

    def limits(self) -> dict[str, int]:
        """Return the largest number of voxels."""
        return {"voxels_0": self.max_voxels}
