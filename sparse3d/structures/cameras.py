"""Cameras: the calibrated rig of one sample.

    pixel ~ image_aug @ K @ lidar2cam @ (x, y, z, 1)

`lidar2img` is the whole product. `lidar2cam` follows whatever moves the points, so `lidar2img` always maps points as
the network sees them to pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

MIN_DEPTH = 1e-5  # metres; what lies closer to the image plane has no pixel

TENSORS = ("intrinsics", "lidar2cam", "image_aug", "image_sizes", "timestamps", "bev_aug")


@dataclass(frozen=True)
class Cameras:
    """Calibration of the cameras of one sample, in a fixed order.

    Args:
        names: one name a camera.
        intrinsics: ``[C, 3, 3]``, of the image as recorded, in pixels.
        lidar2cam: ``[C, 4, 4]``, key-frame LiDAR -> camera at its own exposure (x right, y down, z forward).
        image_aug: ``[C, 4, 4]``, pixels as recorded -> pixels of the network's input. It acts on
            ``(u * depth, v * depth, depth, 1)``, so a shift of pixels stands in its third column.
        image_sizes: ``[C, 2]`` ``(height, width)`` of the network's input in pixels.
        timestamps: ``[C]`` exposure times minus the key frame's, in seconds.
        bev_aug: ``[C, 4, 4]``, the part of ``lidar2cam`` that is augmentation: LiDAR frame before it -> after it, the
            same for all cameras. Networks that are told the calibration read it apart from that.
    """

    names: tuple[str, ...]
    intrinsics: Tensor
    lidar2cam: Tensor
    image_aug: Tensor
    image_sizes: Tensor
    timestamps: Tensor
    bev_aug: Tensor

    def __post_init__(self) -> None:
        """Check the shapes against the number of names."""
        count = len(self.names)
        expected = {
            "intrinsics": (count, 3, 3),
            "lidar2cam": (count, 4, 4),
            "image_aug": (count, 4, 4),
            "image_sizes": (count, 2),
            "timestamps": (count,),
            "bev_aug": (count, 4, 4),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"Cameras: {name} must be {shape}, got {tuple(getattr(self, name).shape)}")

    @classmethod
    def create(
        cls,
        names: Sequence[str],
        intrinsics: Tensor,
        lidar2cam: Tensor,
        image_sizes: Tensor,
        timestamps: Tensor | None = None,
    ) -> Cameras:
        """Build the cameras of images as recorded (no augmentation)."""
        count = len(names)
        return cls(
            names=tuple(names),
            intrinsics=intrinsics.double(),
            lidar2cam=lidar2cam.double(),
            image_aug=torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
            image_sizes=image_sizes.long(),
            timestamps=torch.zeros(count, dtype=torch.float64) if timestamps is None else timestamps.double(),
            bev_aug=torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
        )

    @classmethod
    def cat(cls, rigs: Sequence[Cameras]) -> Cameras:
        """Return the cameras of several rigs, one after the other; all of them must see points of one LiDAR frame."""
        return cls(
            names=tuple(name for rig in rigs for name in rig.names),
            **{each: torch.cat([getattr(rig, each) for rig in rigs]) for each in TENSORS},
        )

    @property
    def lidar2img(self) -> Tensor:
        """``[C, 4, 4]``: points ``(x, y, z, 1)`` -> ``(u * depth, v * depth, depth, 1)``."""
        intrinsics = torch.eye(4, dtype=self.intrinsics.dtype, device=self.intrinsics.device)
        intrinsics = intrinsics.repeat(len(self), 1, 1)
        intrinsics[:, :3, :3] = self.intrinsics
        return self.image_aug @ intrinsics @ self.lidar2cam

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project points into every camera.

        Args:
            points: ``[N, 3]`` in the LiDAR frame, metres.

        Returns:
            Pixels ``[C, N, 2]`` ``(u, v)``, NaN where the point is not in front of the camera, and depths ``[C, N]``
            in metres.
        """
        homogeneous = torch.nn.functional.pad(points.to(self.lidar2img), (0, 1), value=1.0)
        projected = homogeneous @ self.lidar2img.transpose(1, 2)
        depth = projected[..., 2]
        in_front = depth > MIN_DEPTH
        pixels = projected[..., :2] / depth.where(in_front, torch.full_like(depth, torch.nan))[..., None]
        return pixels, depth

    @property
    def sees(self) -> Tensor:
        """``[C]`` bool; a camera whose ``lidar2cam`` is no transform, as that of a missing one, sees nothing."""
        return torch.linalg.det(self.lidar2cam) != 0

    def unproject(self, pixels: Tensor, depths: Tensor) -> Tensor:
        """Return the points that every camera sees at pixels and depths; the inverse of ``project``.

        Args:
            pixels: ``[P, 2]`` ``(u, v)``.
            depths: ``[D]`` in metres.

        Returns:
            ``[C, P, D, 3]`` in the LiDAR frame, NaN for a camera that sees nothing.
        """
        lidar2img = torch.where(self.sees[:, None, None], self.lidar2img, torch.eye(4).to(self.lidar2img))
        rays = torch.nn.functional.pad(pixels.to(lidar2img), (0, 1), value=1.0)
        rays = rays[:, None] * depths.to(lidar2img)[:, None]  # (u d, v d, d)
        homogeneous = torch.nn.functional.pad(rays, (0, 1), value=1.0).flatten(0, 1)
        points = (homogeneous @ torch.linalg.inv(lidar2img).transpose(1, 2))[..., :3].unflatten(1, rays.shape[:2])
        return points.masked_fill(~self.sees[:, None, None, None], torch.nan)

    def visible(self, points: Tensor) -> Tensor:
        """Return the mask ``[C, N]`` of points ``[N, 3]`` that fall inside an image, in front of its camera."""
        pixels, depth = self.project(points)
        height, width = self.image_sizes.to(pixels).T[..., None]
        u, v = pixels.unbind(-1)
        return (depth > MIN_DEPTH) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

    def move_lidar(self, matrix: Tensor) -> Cameras:
        """Follow an augmentation that moves the points: ``matrix`` is 4x4, old LiDAR coordinates -> new ones."""
        return replace(self.change_frame(matrix), bev_aug=matrix.to(self.bev_aug) @ self.bev_aug)

    def change_frame(self, matrix: Tensor) -> Cameras:
        """Take points of another frame: ``matrix`` is 4x4, present LiDAR coordinates -> that frame's.

        This is no augmentation; it comes before all of them.
        """
        return replace(self, lidar2cam=self.lidar2cam @ torch.linalg.inv(matrix.to(self.lidar2cam)))

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        """Move to a device like ``Tensor.to``; matrices stay float64 until they are used."""
        return replace(self, **{name: getattr(self, name).to(*args, **kwargs) for name in TENSORS})

    def __getitem__(self, rows: slice) -> Cameras:
        """Return some of the cameras."""
        return replace(self, names=self.names[rows], **{each: getattr(self, each)[rows] for each in TENSORS})

    def __len__(self) -> int:
        return len(self.names)
