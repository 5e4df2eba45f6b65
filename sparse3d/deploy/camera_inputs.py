"""From images and their calibration to the tensors that a graph takes, by training's own code.

    name      shape            what
    images    [1, N, 3, H, W]  see `image_inputs.py`
    codes     [1, N, 27]       what the depth network is told of the rig, float32
    ring      [1, D, Y X]      cells at each depth, float32
    ray       [1, N W, Y X]    cells in the direction of each column of features, float32

All but the images follow from the calibration, and are made once for a rig that stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from sparse3d.encoding import RingRay, calibration_codes
from sparse3d.structures import Cameras, Grid

from .image_inputs import ImageInputs
from .named import Feed, Named, OneGraph, Shape
from .sensor_scan import CameraScan


@dataclass(frozen=True)
class CameraInputs(OneGraph):
    """How images become the inputs of a graph.

    Args:
        grid: the grid of the map.
        images: how images do.
        num_columns: W of the features.
        depth_bins: lower edge of the first bin, upper edge of the last one, size, in metres.
        cells: how points are assigned to cells, see ``RingRay``.
    """

    grid: Grid
    images: ImageInputs
    num_columns: int
    depth_bins: tuple[float, float, float]
    cells: str

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        values = {name: value for name, value in asdict(self).items() if name != "grid"}
        return {"type": type(self).__name__, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> CameraInputs:
        """Build from what ``to_json`` returned."""
        images, bins = ImageInputs.from_json(values["images"]), tuple(values["depth_bins"])
        return cls(grid, images, values["num_columns"], bins, values["cells"])

    # -- images to tensors -------------------------------------------------------------------------------------------

    def __call__(self, scan: CameraScan) -> Feed:
        """Return the graph's inputs for one scan; errors as ``ImageInputs``."""
        return Feed({"images": self.images(scan), **self._rig(scan.cameras)})

    def _rig(self, cameras: Cameras) -> Named:
        key = b"".join(getattr(cameras, name).numpy().tobytes() for name in ("lidar2img", "intrinsics", "image_aug"))
        if key not in self._kept:
            low, high, size = self.depth_bins
            depths = low + size * torch.arange(round((high - low) / size), dtype=torch.float64)
            matrices = RingRay.build(cameras, self.images.input_size, self.num_columns, depths, self.grid, self.cells)
            self._kept.clear()
            codes = calibration_codes([cameras])
            self._kept[key] = {"codes": codes, "ring": matrices.ring[None], "ray": matrices.ray[None]}
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[bytes, Named]:
        return {}

    # -- shapes --------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input; none differs from scan to scan."""
        low, high, size = self.depth_bins
        cells = self.grid.out_shape[0] * self.grid.out_shape[1]
        return {
            "images": self.images.shape,
            "codes": (1, self.images.num_cameras, 27),
            "ring": (1, round((high - low) / size), cells),
            "ray": (1, self.images.num_cameras * self.num_columns, cells),
        }

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan; none does."""
        return {}
