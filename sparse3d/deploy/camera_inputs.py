"""From images and their calibration to the tensors that a graph takes, by training's own code.

    name      shape            what
    images    [1, N, 3, H, W]  normalised, float32
    codes     [1, N, 27]       what the depth network is told of the rig, float32
    ring      [1, D, Y X]      cells at each depth, float32
    ray       [1, N W, Y X]    cells in the direction of each column of features, float32

All but the images follow from the calibration, and are made once for a rig that stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.encoding import RingRay, calibration_codes
from sparse3d.structures import Cameras, Grid
from sparse3d.structures.cameras import TENSORS

from .named import Feed, Named, Shape


@dataclass(frozen=True)
class CameraScan:
    """What cameras see at one time.

    Args:
        images: ``[N, 3, H, W]`` uint8, red, green, blue, resized and cropped as in training.
        cameras: their calibration, resizing and cropping included; boxes stand in the frame that ``lidar2cam`` takes
            points of, which must be that of training (for MatrixVT the vehicle's).
    """

    images: Tensor
    cameras: Cameras

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what ``golden.npz`` holds of the scan."""
        rig = {f"cameras/{name}": getattr(self.cameras, name).numpy() for name in TENSORS}
        return {"images": self.images.numpy(), "cameras/names": np.array(self.cameras.names), **rig}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> CameraScan:
        """Build from what ``to_arrays`` returned."""
        rig = {name: torch.from_numpy(arrays[f"cameras/{name}"]) for name in TENSORS}
        cameras = Cameras(names=tuple(arrays["cameras/names"].tolist()), **rig)
        return cls(torch.from_numpy(arrays["images"]), cameras)


@dataclass(frozen=True)
class CameraInputs:
    """How images become the inputs of a graph.

    Args:
        grid: the grid of the map.
        num_cameras: N.
        image_size: ``(H, W)`` in pixels.
        num_columns: W of the features.
        depth_bins: lower edge of the first bin, upper edge of the last one, size, in metres.
        cells: how points are assigned to cells, see ``RingRay``.
        mean: of each channel, as in training.
        std: likewise.
        bgr: whether the network reads blue, green, red.
    """

    grid: Grid
    num_cameras: int
    image_size: tuple[int, int]
    num_columns: int
    depth_bins: tuple[float, float, float]
    cells: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool
    num_graphs: int = field(default=1, init=False)

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        values = {name: value for name, value in asdict(self).items() if name not in ("grid", "num_graphs")}
        return {"type": type(self).__name__, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> CameraInputs:
        """Build from what ``to_json`` returned."""
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        own.pop("type")
        return cls(grid=grid, **own)

    # -- images to tensors -------------------------------------------------------------------------------------------

    def __call__(self, scan: CameraScan) -> Feed:
        """Return the graph's inputs for one scan.

        Raises:
            ValueError: if there is another number of images, or one of another size or dtype.
        """
        expected = [self.num_cameras, 3, *self.image_size]
        if list(scan.images.shape) != expected or scan.images.dtype != torch.uint8:
            raise ValueError(
                f"images: expected {expected} uint8, got {list(scan.images.shape)} "
                f"{str(scan.images.dtype).removeprefix('torch.')}"
            )
        if len(scan.cameras) != self.num_cameras:
            raise ValueError(f"cameras: expected {self.num_cameras}, as there are images, got {len(scan.cameras)}")
        images = scan.images.flip(1) if self.bgr else scan.images
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return Feed({"images": ((images - mean) / std)[None], **self._rig(scan.cameras)})

    def _rig(self, cameras: Cameras) -> Named:
        key = b"".join(getattr(cameras, name).numpy().tobytes() for name in ("lidar2img", "intrinsics", "image_aug"))
        if key not in self._kept:
            low, high, size = self.depth_bins
            depths = low + size * torch.arange(round((high - low) / size), dtype=torch.float64)
            matrices = RingRay.build(cameras, self.image_size, self.num_columns, depths, self.grid, self.cells)
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
            "images": (1, self.num_cameras, 3, *self.image_size),
            "codes": (1, self.num_cameras, 27),
            "ring": (1, round((high - low) / size), cells),
            "ray": (1, self.num_cameras * self.num_columns, cells),
        }

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows; none does."""
        return {}

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan; none does."""
        return {}
