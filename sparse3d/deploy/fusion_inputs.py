"""From points and images to the tensors that SparseFusion's graph takes, by training's own code.

    name              shape                  what
    (points)                                 see `inputs.py` and `table_inputs.py`
    images            [1, N, 3, H, W]        see `image_inputs.py`
    depth_maps        [1, N, 2, H/4, W/4]    what the points of the key frame say about pixels, see `depth_maps.py`
    rotations         [1, N, 3, 3]           LiDAR -> camera; this and the next three as in `camera_geometry.py`
    shifts            [1, N, 3]
    intrinsics        [1, N, 3, 3]
    sizes             [1, N, 2]
    seen_rows         [N, looks]             which cells the cameras see: this and the next five as in `seen_cells.py`
    seen_filled       [N, looks]             bool
    seen_references   [N, looks, 2]
    seen_depths       [N, looks, 1]
    seen_cells        [cells]
    seen_looks        [cells, N]

The modules named are those of `sparse3d.encoding`. What cells a camera sees follows from points and calibration alone,
so the graph is told of it in tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.cell_heights import CellHeights, cell_heights
from sparse3d.encoding.depth_maps import FINEST_STRIDE, draw_depth_maps
from sparse3d.encoding.seen_cells import SeenCells, cell_points
from sparse3d.structures import Grid, Voxels

from .image_inputs import ImageInputs
from .inputs import PointInputs, as_int32
from .named import Feed, Named, OneGraph, Shape
from .sensor_scan import FusionScan, check_kind

GEOMETRY = ("rotations", "shifts", "intrinsics", "sizes")


@dataclass(frozen=True)
class FusionInputs(OneGraph):
    """How points and images become the inputs of SparseFusion's graph.

    Args:
        points: how points do.
        images: how images do.
        height_points: points of a voxel that count for the heights of cells, the first ones; None for all.
        lag_column: column of the points that is 0 for those of the key frame.
    """

    points: PointInputs
    images: ImageInputs
    height_points: int | None
    lag_column: int

    @property
    def grid(self) -> Grid:
        """The grid of the voxels."""
        return self.points.grid

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        return {
            "type": type(self).__name__,
            "points": self.points.to_json(),
            "images": asdict(self.images),
            "height_points": self.height_points,
            "lag_column": self.lag_column,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> FusionInputs:
        """Build from what ``to_json`` returned."""
        points, images = PointInputs.from_json(values["points"], grid), ImageInputs.from_json(values["images"])
        return cls(points, images, values["height_points"], values["lag_column"])

    # -- sensors to tensors ------------------------------------------------------------------------------------------

    def __call__(self, scan: FusionScan) -> Feed:
        """Return the graph's inputs for one scan.

        Raises:
            ValueError: if the scan has no points or no images, or one of them is not as ``PointInputs`` or
                ``ImageInputs`` wants it.
        """
        check_kind(scan, FusionScan)
        images, voxels = self.images(scan), self.points.sort(scan.points)
        cameras = CameraGeometry.of([scan.cameras], self.images.input_size)
        now = scan.points[scan.points[:, self.lag_column] == 0, :3]
        maps = draw_depth_maps(now, now.new_zeros(len(now), dtype=torch.int64), cameras, FINEST_STRIDE)
        named = {
            **self.points.describe(voxels).named,
            "images": images,
            "depth_maps": maps,
            **{name: getattr(cameras, name) for name in GEOMETRY},
            **{f"seen_{name}": each for name, each in vars(self._see(voxels, cameras)).items()},
        }
        return as_int32(Feed(named))

    def _see(self, voxels: Voxels, cameras: CameraGeometry) -> SeenCells:
        heights = CellHeights.between(*cell_heights(voxels, self.grid, self.height_points))
        return SeenCells.find(cell_points(heights, self.grid), cameras)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input."""
        count, (height, width) = self.images.num_cameras, self.images.input_size
        return {
            **self.points.shapes(),
            "images": self.images.shape,
            "depth_maps": (1, count, 2, height // FINEST_STRIDE, width // FINEST_STRIDE),
            "rotations": (1, count, 3, 3),
            "shifts": (1, count, 3),
            "intrinsics": (1, count, 3, 3),
            "sizes": (1, count, 2),
            "seen_rows": (count, "looks"),
            "seen_filled": (count, "looks"),
            "seen_references": (count, "looks", 2),
            "seen_depths": (count, "looks", 1),
            "seen_cells": ("cells",),
            "seen_looks": ("cells", count),
        }

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        rows, columns = self.grid.out_shape
        return {**self.points.limits(), "looks": rows * columns, "cells": rows * columns}


def geometry_of(named: Named, image_size: tuple[int, int]) -> CameraGeometry:
    """Return the cameras as the graph takes them."""
    return CameraGeometry(*(named[name] for name in GEOMETRY), image_size)


def seen_of(named: Named) -> SeenCells:
    """Return the cells that cameras see as the graph takes them."""
    return SeenCells(**{each.name: _wide(named[f"seen_{each.name}"]) for each in fields(SeenCells)})


def _wide(tensor: Tensor) -> Tensor:
    return tensor.long() if tensor.dtype == torch.int32 else tensor
