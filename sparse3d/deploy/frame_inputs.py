"""From the images of several frames to the tensors that SparseBEV's graph takes, by training's own code.

name        shape              what
images      [1, T N, 3, H, W]  see `image_inputs.py`, the present frame first
lidar2img   [1, T, N, 4, 4]    points of the present LiDAR frame -> pixels, float32; see `sparse3d.encoding.frames`
ages        [1, T]             seconds that a frame lies before the present one, float32
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparse3d.encoding.frames import frame_ages, frame_matrices
from sparse3d.structures import Grid

from .image_inputs import ImageInputs
from .named import Feed, OneGraph, Shape
from .sensor_scan import CameraScan


@dataclass(frozen=True)
class FrameInputs(OneGraph):
    """How images become the inputs of a graph.

    Args:
        grid: the grid of the head.
        images: how images do; they are those of all frames.
        num_frames: T.
    """

    grid: Grid
    images: ImageInputs
    num_frames: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        return {"type": type(self).__name__, "images": asdict(self.images), "num_frames": self.num_frames}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> FrameInputs:
        """Build from what ``to_json`` returned."""
        return cls(grid, ImageInputs.from_json(values["images"]), values["num_frames"])

    def __call__(self, scan: CameraScan) -> Feed:
        """Return the graph's inputs for one scan; errors as ``ImageInputs``."""
        images, rig = self.images(scan), [scan.cameras]
        ages = frame_ages(rig, self.num_frames)
        return Feed({"images": images, "lidar2img": frame_matrices(rig, self.num_frames), "ages": ages})

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input; none differs from scan to scan."""
        cameras = self.images.num_cameras // self.num_frames
        matrices = (1, self.num_frames, cameras, 4, 4)
        return {"images": self.images.shape, "lidar2img": matrices, "ages": (1, self.num_frames)}

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan; none does."""
        return {}
