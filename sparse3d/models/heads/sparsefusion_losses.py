"""SparseFusion's losses: of heat maps, and of what each kind of candidate says.

    heatmap 0.1, image_heatmap 0.1    penalty-reduced focal loss; of images without their padding
    *_class 1                         focal loss, for lidar, fusion, view and camera
    *_box 0.25                        L1 of ten numbers, for lidar, fusion and view
    camera_center 5                   L1 in parts of the image
    camera_depth, _dim, _rot, _vel 0.25

A query that was matched with an object of another camera, for want of one of that camera, counts in no loss of the
camera decoder. Numbers that the truth does not know (NaN) are left out.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.5, as in its published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.decoding.sparsefusion import decode_boxes
from sparse3d.structures import Grid, Sample

from ..losses import code_l1_loss, gaussian_focal_loss, query_focal_loss
from ..targets.camera_truth import CameraTruth
from ..targets.ground_truth import GroundTruth
from ..targets.sparsefusion_targets import (
    Matches,
    SparseFusionTargetAssigner,
    encode_boxes,
    encode_camera_boxes,
)
from .sparsefusion_camera import CAMERA_BRANCHES, CameraPredictions
from .sparsefusion_layers import BRANCHES, Predictions
from .sparsefusion_output import SparseFusionOutput

LOSS_WEIGHTS = {
    "heatmap": 0.1,
    "image_heatmap": 0.1,
    **{f"{part}_class": 1.0 for part in ("lidar", "fusion", "view", "camera")},
    **{f"{part}_box": 0.25 for part in ("lidar", "fusion", "view")},
    "camera_center": 5.0,
    **{f"camera_{name}": 0.25 for name in ("depth", "dim", "rot", "vel")},
}


@dataclass(frozen=True)
class SparseFusionLoss:
    """All losses of the head.

    Args:
        grid: the grid of the map's cells.
        assigner: matches candidates with objects.
        weights: weight of each loss.
        velocity_weight: weight of each of the two numbers of a velocity; the others have 1.
    """

    grid: Grid
    assigner: SparseFusionTargetAssigner
    weights: Mapping[str, float]
    velocity_weight: float

    def __call__(self, output: SparseFusionOutput, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the weighted losses of a batch as ``loss_*``, and ``matched_iou``.

        Raises:
            ValueError: if a sample has no ``gt``, a label exceeds the classes, or a prediction is not finite.
        """
        num_classes = output.heatmap.shape[1]
        truth = GroundTruth.gather(samples, num_classes)
        truth = truth[(truth.boxes.sizes > 0).all(dim=1)]
        by_camera = CameraTruth.find(truth, output.cameras)
        seen = truth[self._visible(samples, truth, by_camera)]
        losses = {
            "heatmap": gaussian_focal_loss(output.heatmap, self.assigner.draw(truth, num_classes)),
            "image_heatmap": self.of_image_heatmaps(output, by_camera),
        }
        for part, predictions, objects in (
            ("lidar", output.lidar, truth),
            ("fusion", output.fusion, truth),
            ("view", output.view, seen),
        ):
            matches = self.match(predictions, objects)
            losses[f"{part}_class"], losses[f"{part}_box"] = self.of_boxes(predictions, matches, objects)
            if part == "fusion":
                matched_iou = matches.ious.sum() / max(len(matches.ious), 1)
        losses.update(self.of_camera(output.camera, by_camera, output.cameras.image_size))
        weighted = {f"loss_{name}": self.weights[name] * value for name, value in losses.items()}
        return {**weighted, "matched_iou": matched_iou}

    @staticmethod
    def _visible(samples: Sequence[Sample], truth: GroundTruth, by_camera: CameraTruth) -> Tensor:
        """Return the mask of the objects that a camera sees, or saw before augmentation where that is known."""
        if all("visible" in sample.gt for sample in samples):
            return torch.cat([sample.gt.visible[_counted(sample)] for sample in samples])
        visible = torch.zeros_like(truth.labels, dtype=torch.bool)
        visible[by_camera.objects] = True
        return visible

    def of_image_heatmaps(self, output: SparseFusionOutput, truth: CameraTruth) -> Tensor:
        """Return the loss of the images' heat maps, not weighted; padding does not count."""
        heatmaps, cameras = output.image_heatmaps, output.cameras
        shapes = [tuple(level.shape[-2:]) for level in heatmaps]
        drawn = self.assigner.draw_images(truth, heatmaps[0].shape[2], shapes, *cameras.sizes.shape[:2])
        shown = [~level[:, :, None] for level in cameras.hidden(shapes, stride=4)]
        logits = torch.cat([level[mask.expand_as(level)] for level, mask in zip(heatmaps, shown, strict=True)])
        target = torch.cat([level[mask.expand_as(level)] for level, mask in zip(drawn, shown, strict=True)])
        return gaussian_focal_loss(logits, target)

    def match(self, predictions: Predictions, truth: GroundTruth) -> Matches:
        """Match candidates in the LiDAR frame with objects."""
        codes = {name: code.detach().float() for name, code in predictions.codes.items()}
        return self.assigner.match(predictions.logits.float(), decode_boxes(codes, self.grid), truth)

    def of_boxes(self, predictions: Predictions, matches: Matches, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Return the losses of classes and of boxes of candidates in the LiDAR frame, not weighted."""
        logits = predictions.logits.float().flatten(0, 1)
        wanted = encode_boxes(truth.boxes[matches.objects], self.grid)
        said = {name: predictions.codes[name].float().flatten(0, 1)[matches.queries] for name in BRANCHES}
        box = code_l1_loss(
            torch.cat([said[name] for name in BRANCHES], dim=1),
            torch.cat([wanted[name] for name in BRANCHES], dim=1),
            self._code_weights(BRANCHES, logits),
        )
        return query_focal_loss(logits, matches.labels.flatten(), len(matches.queries)), box

    def match_cameras(self, predictions: CameraPredictions, truth: CameraTruth) -> Matches:
        """Match camera queries with what the cameras see."""
        boxes = decode_camera_boxes(predictions)
        return self.assigner.match_cameras(predictions.logits.float(), boxes, predictions.views, truth)

    def of_camera(
        self, predictions: CameraPredictions, truth: CameraTruth, image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Return the losses of camera queries by name, not weighted."""
        matches = self.match_cameras(predictions, truth)
        own = predictions.views.flatten()[matches.queries] == truth.views[matches.objects]
        counted = torch.ones_like(matches.labels.flatten(), dtype=torch.bool)
        counted[matches.queries[~own]] = False
        logits, labels = predictions.logits.float().flatten(0, 1)[counted], matches.labels.flatten()[counted]
        losses = {"camera_class": query_focal_loss(logits, labels, len(matches.queries))}
        wanted = encode_camera_boxes(truth, image_size)
        for name in CAMERA_BRANCHES:
            said = predictions.codes[name].float().flatten(0, 1)[matches.queries]
            target = wanted[name][matches.objects].masked_fill(~own[:, None], torch.nan)
            losses[f"camera_{name}"] = code_l1_loss(said, target, self._code_weights([name], said))
        return losses

    def _code_weights(self, names: Sequence[str], like: Tensor) -> Tensor:
        sizes = {**BRANCHES, **CAMERA_BRANCHES}
        weights = [self.velocity_weight if name == "vel" else 1.0 for name in names for _ in range(sizes[name])]
        return like.new_tensor(weights)


def _counted(sample: Sample) -> Tensor:
    """Return the mask of the objects that are in the truth: of a class, and of a size."""
    return (sample.gt.labels >= 0) & (sample.gt.boxes.sizes > 0).all(dim=1)


def decode_camera_boxes(predictions: CameraPredictions) -> Tensor:
    """Return the boxes ``[B, Q, 9]`` of camera queries in the level frames of their cameras, without gradient."""
    codes = {name: code.detach().float() for name, code in predictions.codes.items()}
    sin, cos = codes["rot"].split(1, dim=-1)
    yaws = torch.atan2(sin, cos)
    return torch.cat([predictions.places.detach(), codes["dim"].exp(), yaws, codes["vel"]], dim=-1)
