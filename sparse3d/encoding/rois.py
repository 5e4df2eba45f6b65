"""Regions of interest: the boxes of a batch in its images, and the camera that each of them is.

What a box shows, scaled to P x P cells, is what a camera with other intrinsics would see:

    K' = S K,    S scales by s = P / (w, h) and takes the middle of the first cell to 0:   u' = s (u - x1) - 1/2

All of it is computed in float64: float32 moves boxes at the border of an image.

Source: MV2D (Wang et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.decoding.image_boxes import ImageDetections
from sparse3d.structures import Cameras

STAND_IN = (50.0, 50.0, 100.0, 100.0)  # the box in an empty slot
SMALLEST = 4.0  # pixels; the intrinsics of a region with a shorter side are not shown to the network
FEATURE_SCALE = 0.1
NO_LAG = 1e-5  # seconds
STAND_IN_LAG = 15 * 0.083  # seconds that an image counts as old where it stands in for one that is not there


def frame_lags(cameras: Sequence[Cameras], num_frames: int) -> Tensor:
    """Return the time ``[B]`` between the first two frames of rigs in seconds, float64."""
    times = torch.stack([rig.timestamps for rig in cameras]).unflatten(1, (num_frames, -1)).mean(dim=2)
    lags = times[:, 0] - times[:, 1]
    return lags.where(lags.abs() > NO_LAG, STAND_IN_LAG)


@dataclass(frozen=True)
class Views:
    """V images of each of B samples.

    Args:
        intrinsics: ``[B, V, 4, 4]`` float64, camera -> pixels of the network's input.
        lidar2cam: ``[B, V, 4, 4]`` float64; the identity where the camera is missing.
        seeing: ``[B, V]`` bool, whether the camera is there.
        sizes: ``[B, V, 2]`` int64 ``(height, width)`` of the images without padding.
        image_size: ``(height, width)`` of the network's input.
    """

    intrinsics: Tensor
    lidar2cam: Tensor
    seeing: Tensor
    sizes: Tensor
    image_size: tuple[int, int]

    @classmethod
    def of(cls, cameras: Sequence[Cameras], image_size: tuple[int, int], device: torch.device) -> Views:
        """Return the views of B samples with as many cameras each."""
        rigid = torch.stack([rig.lidar2cam for rig in cameras]).to(device)
        intrinsics = torch.eye(4, dtype=rigid.dtype, device=device).expand_as(rigid).clone()
        intrinsics[..., :3, :3] = torch.stack([rig.image_aug[:, :3, :3] @ rig.intrinsics for rig in cameras]).to(device)
        seeing = rigid.flatten(2).any(dim=2)
        identity = torch.eye(4, dtype=rigid.dtype, device=device)
        sizes = torch.stack([rig.image_sizes for rig in cameras]).to(device)
        return cls(intrinsics, rigid.where(seeing[..., None, None], identity), seeing, sizes, image_size)

    @property
    def lidar2img(self) -> Tensor:
        """``[B, V, 4, 4]`` float64."""
        return self.intrinsics @ self.lidar2cam


@dataclass(frozen=True)
class RoIs:
    """Q boxes of each of B samples.

    Args:
        boxes: ``[B, Q, 4]`` float32 ``(x1, y1, x2, y2)`` in pixels.
        views: ``[B, Q]`` int64, image of each.
        valid: ``[B, Q]`` bool, False in slots that hold no box; they come last, and there is at least one slot.
    """

    boxes: Tensor
    views: Tensor
    valid: Tensor

    @classmethod
    def gather(cls, detections: ImageDetections, seeing: Tensor) -> RoIs:
        """Return the detections of a batch, but for those in images of missing cameras (``seeing`` ``[B, V]``)."""
        batch_size, num_views = seeing.shape
        keep = seeing.flatten()[detections.images]
        images, boxes = detections.images[keep], detections.boxes[keep].float()
        samples = images // num_views
        counts = torch.bincount(samples, minlength=batch_size)
        slots = torch.arange(len(images), device=images.device) - (counts.cumsum(0) - counts)[samples]
        shape = (batch_size, max(int(counts.max()), 1))
        all_boxes = boxes.new_tensor(STAND_IN).repeat(*shape, 1).index_put((samples, slots), boxes)
        views = images.new_zeros(shape).index_put((samples, slots), images % num_views)
        valid = torch.zeros(shape, dtype=torch.bool, device=images.device)
        return cls(all_boxes, views, valid.index_put((samples, slots), valid.new_ones(())))

    def pick(self, values: Tensor) -> Tensor:
        """Return what belongs to the image of each box, ``[B, Q, ...]`` of ``[B, V, ...]``."""
        return values[torch.arange(len(self.views), device=values.device)[:, None], self.views]

    def image_numbers(self, num_views: int) -> Tensor:
        """Return the number of each box's image in the batch, ``[B Q]`` int64."""
        first = torch.arange(len(self.views), device=self.views.device)[:, None] * num_views
        return (first + self.views).flatten()

    def cameras(self, views: Views, cells: int) -> Tensor:
        """Return K' ``[B, Q, 4, 4]`` float64 of each box with ``cells`` cells along each side."""
        boxes = self.boxes.double()
        scale = cells / (boxes[..., 2:] - boxes[..., :2])
        to_cells = torch.eye(4, dtype=boxes.dtype, device=boxes.device).repeat(*scale.shape[:2], 1, 1)
        to_cells[..., [0, 1], [0, 1]] = scale
        to_cells[..., :2, 2] = -boxes[..., :2] * scale - 0.5
        return to_cells @ self.pick(views.intrinsics)

    def camera_features(self, cameras: Tensor) -> Tensor:
        """Return K' as the network reads it, ``[B, Q, 16]`` float32."""
        sides = self.boxes[..., 2:] - self.boxes[..., :2]
        large = (sides >= SMALLEST).all(dim=-1, keepdim=True)
        return (cameras.flatten(2) * FEATURE_SCALE).float().where(large, 0)

    def describe(self, views: Views, cells: int) -> tuple[Tensor, Tensor]:
        """Return ``camera_features``, and the inverse of K' lidar2cam ``[B, Q, 4, 4]`` float32."""
        cameras = self.cameras(views, cells)
        return self.camera_features(cameras), torch.linalg.inv(cameras @ self.pick(views.lidar2cam)).float()
