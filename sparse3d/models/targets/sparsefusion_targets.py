"""SparseFusion's training targets: which object each candidate stands for, and heat maps of the map and the images.

    LiDAR, fusion   all objects                              cost as TransFusion's, with the boxes' true overlap
    view            those that a camera sees                 the same
    camera          those of each camera, in its level frame focal + L1 of two coordinates + overlap,
                    + 1000 where the query belongs to another camera

    image heat map  a Gaussian at the pixel of the centre, on the level that fits the object's extent in the image

The published cost of the camera compares x and the vertical coordinate, not x and the distance (`camera_cost`).

Source: SparseFusion (Xie et al., ICCV 2023), section 3.5, as in its published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops import iou_3d

from .camera_truth import CameraTruth
from .gaussian import draw_gaussians, published_radius
from .ground_truth import GroundTruth
from .hungarian import focal_cost, l1_cost, match
from .transfusion_targets import TransFusionTargetAssigner, encode_centers

CAMERA_COSTS = {"vertical": [0, 2], "ground": [0, 1]}  # coordinates of the level frame
OTHER_CAMERA = 1000.0
IMAGE_STRIDE = 4  # of the finest level


@dataclass(frozen=True)
class Matches:
    """Queries that stand for objects.

    Args:
        queries: ``[M]`` int64, ``b * Q + q``.
        objects: ``[M]`` int64, rows of the truth.
        ious: ``[M]``, 3D IoU of each pair.
        labels: ``[B, Q]`` int64, class of each query's object, K where it has none.
    """

    queries: Tensor
    objects: Tensor
    ious: Tensor
    labels: Tensor


@dataclass(frozen=True)
class SparseFusionTargetAssigner:
    """Matches candidates with objects and draws heat maps.

    Args:
        grid: the grid; its stride gives the map's cells.
        overlap: IoU that a box shifted by a Gaussian's radius still has.
        min_radius: smallest radius of a Gaussian, in cells of the map or of the finest image level.
        class_cost: weight of the focal cost.
        center_cost: weight of the distance of centres, in parts of the point range.
        iou_cost: weight of the 3D IoU.
        camera_cost: what the distance of centres means to a camera: ``"vertical"`` across and up, as published;
            ``"ground"`` across and ahead.
        level_extents: extents in pixels from which on an object belongs to the next coarser level.

    Raises:
        ValueError: if ``camera_cost`` is another word.
    """

    grid: Grid
    overlap: float = 0.1
    min_radius: int = 2
    class_cost: float = 0.15
    center_cost: float = 0.25
    iou_cost: float = 0.25
    camera_cost: str = "vertical"
    level_extents: Sequence[float] = (48.0, 96.0, 192.0)

    def __post_init__(self) -> None:
        """Check the option."""
        if self.camera_cost not in CAMERA_COSTS:
            raise ValueError(f"camera_cost must be one of {', '.join(CAMERA_COSTS)}, got {self.camera_cost!r}")

    def match(
        self,
        logits: Tensor,  # [B, Q, K]
        boxes: Tensor,  # [B, Q, 9]
        truth: GroundTruth,
    ) -> Matches:
        """Match candidates in the LiDAR frame.

        Raises:
            ValueError: if a prediction or an object is not finite.
        """
        found = self._transfusion.match(logits.detach(), boxes.detach(), truth)
        return self._matches(*found, truth.labels, logits)

    def match_cameras(
        self,
        logits: Tensor,  # [B, Q, K]
        boxes: Tensor,  # [B, Q, 9]
        views: Tensor,  # [B, Q]
        truth: CameraTruth,
    ) -> Matches:
        """Match camera queries, whose boxes are in the level frames of their cameras.

        Raises:
            ValueError: if a prediction or an object is not finite.
        """
        logits, boxes = logits.detach(), boxes.detach()
        queries, objects, ious = [], [], []
        for sample in range(len(logits)):
            rows = (truth.batch_index == sample).nonzero()[:, 0]
            own = truth.boxes.tensor[rows]
            overlap = iou_3d(boxes[sample, :, :7], own[:, :7])
            cost = (
                self.class_cost * focal_cost(logits[sample], truth.labels[rows])
                + self.center_cost * l1_cost(self._for_camera(boxes[sample]), self._for_camera(own))
                - self.iou_cost * overlap
                + OTHER_CAMERA * (views[sample][:, None] != truth.views[rows])
            )
            query, row = match(cost)
            queries.append(query + sample * logits.shape[1])
            objects.append(rows[row])
            ious.append(overlap[query, row])
        return self._matches(torch.cat(queries), torch.cat(objects), torch.cat(ious), truth.labels, logits)

    def draw(self, truth: GroundTruth, num_classes: int) -> Tensor:
        """Return the heat maps ``[B, K, Y, X]`` of the bird's-eye map."""
        return self._transfusion.draw(truth, num_classes).transpose(2, 3)

    def draw_images(
        self,
        truth: CameraTruth,
        num_classes: int,
        shapes: Sequence[tuple[int, int]],
        batch_size: int,
        num_cameras: int,
    ) -> list[Tensor]:
        """Return the heat maps ``[B, N, K, H, W]`` of the images, one a level of ``shapes``."""
        extents = truth.extents
        level_of = torch.bucketize(extents.amax(dim=1), extents.new_tensor(self.level_extents), right=True)
        width, height = (extents / IMAGE_STRIDE).unbind(1)
        radii = published_radius(height, width, self.overlap).clamp(min=self.min_radius)
        maps = (truth.batch_index * num_cameras + truth.views) * num_classes + truth.labels
        drawable = (extents > 0).all(dim=1)
        drawn = []
        for level, shape in enumerate(shapes):
            own = drawable & (level_of == level)
            scale = 2**level
            cells = (truth.pixels[own] / IMAGE_STRIDE / scale).long()
            flat = draw_gaussians(
                cells, (radii[own] / scale).long(), maps[own], batch_size * num_cameras * num_classes, shape
            )
            drawn.append(flat.view(batch_size, num_cameras, num_classes, *shape))
        return drawn

    @property
    def _transfusion(self) -> TransFusionTargetAssigner:
        return TransFusionTargetAssigner(
            self.grid,
            overlap=self.overlap,
            min_radius=self.min_radius,
            class_cost=self.class_cost,
            center_cost=self.center_cost,
            iou_cost=self.iou_cost,
            center_as_bottom=False,
        )

    def _for_camera(self, boxes: Tensor) -> Tensor:
        """Return two coordinates of centres ``[N, 2]``, in parts of the point range."""
        lower, upper = (boxes.new_tensor(values[:2]) for values in (self.grid.lower, self.grid.upper))
        return boxes[:, CAMERA_COSTS[self.camera_cost]] / (upper - lower)

    @staticmethod
    def _matches(queries: Tensor, objects: Tensor, ious: Tensor, labels: Tensor, logits: Tensor) -> Matches:
        of_queries = torch.full(logits.shape[:2], logits.shape[2], device=logits.device)
        of_queries.view(-1)[queries] = labels[objects]
        return Matches(queries, objects, ious, of_queries)


def encode_boxes(boxes: Boxes3D, grid: Grid) -> dict[str, Tensor]:
    """Return the codes ``[N, 1 to 3]`` of boxes in the LiDAR frame; see ``heads/sparsefusion_layers.py``."""
    return {"center": encode_centers(boxes, grid), "height": boxes.centers[:, 2:], **_common_codes(boxes)}


def encode_camera_boxes(truth: CameraTruth, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the codes ``[M, 1 to 3]`` of boxes in level frames; see ``heads/sparsefusion_camera.py``."""
    centers = truth.pixels / truth.pixels.new_tensor(image_size[::-1])
    return {"center": centers, "depth": truth.boxes.centers[:, 1:2], **_common_codes(truth.boxes)}


def _common_codes(boxes: Boxes3D) -> dict[str, Tensor]:
    yaws = boxes.yaws
    return {
        "dim": boxes.sizes.log(),
        "rot": torch.stack([yaws.sin(), yaws.cos()], dim=1),
        "vel": boxes.velocities,
    }
