"""Rigs of the layout of real ones, for golden inputs and benchmarks where no recording is at hand.

Cameras look around in equal steps from one point of the vehicle, the first one ahead. Images are noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse3d.structures import Cameras

FOCAL_LENGTH = 0.79  # in image widths, as nuScenes' front camera
HEIGHT = 1.6  # metres above the LiDAR frame's origin
INTERVAL = 0.5  # seconds between two frames


def make_rig(num_cameras: int, image_size: tuple[int, int], num_frames: int = 1) -> Cameras:
    """Return the cameras of one frame, or of several, the latest first; the vehicle stands still.

    Args:
        num_cameras: of each frame.
        image_size: ``(height, width)`` in pixels.
        num_frames: frames.
    """
    height, width = image_size
    turns = torch.arange(num_cameras, dtype=torch.float64) * (-2 * torch.pi / num_cameras)
    cos, sin, zero, one = turns.cos(), turns.sin(), torch.zeros_like(turns), torch.ones_like(turns)
    rows = [[sin, -cos, zero, zero], [zero, zero, -one, HEIGHT * one], [cos, sin, zero, zero], [zero, zero, zero, one]]
    lidar2cam = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    focal = FOCAL_LENGTH * width
    intrinsic = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras.create(
        [f"camera_{number}" for number in range(num_cameras)] * num_frames,
        intrinsic.repeat(num_frames * num_cameras, 1, 1),
        lidar2cam.repeat(num_frames, 1, 1),
        torch.tensor([image_size] * num_frames * num_cameras),
        -INTERVAL * torch.arange(num_frames).repeat_interleave(num_cameras),
    )


def make_images(cameras: Cameras, seed: int = 0) -> Tensor:
    """Return an image a camera, all of one size, ``[C, 3, H, W]`` uint8."""
    height, width = cameras.image_sizes[0].tolist()
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (len(cameras), 3, height, width), generator=generator, dtype=torch.uint8)
