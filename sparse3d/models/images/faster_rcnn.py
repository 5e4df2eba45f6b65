"""Faster R-CNN on a feature pyramid: proposals, and a small network that names and reshapes each of them.

Source: Faster R-CNN (Ren et al., NIPS 2015), section 3, with the box head of FPN (Lin et al., CVPR 2017), section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.box_deltas import BoxDeltas
from sparse3d.decoding.image_boxes import DetectionFilter, ImageBoxes, ImageDetections
from sparse3d.decoding.proposals import Proposals
from sparse3d.encoding.box_levels import POOLED_CELLS, POOLED_LEVELS
from sparse3d.registry import MODELS

from ..targets.iou_targets import IoUAssigner, draw
from .box_pooling import pool_boxes
from .detector_2d import Detector2D
from .region_proposals import RegionProposalNetwork

SAMPLES, POSITIVE_SHARE = 512, 0.25
CLASS_STD, BOX_STD = 0.01, 0.001  # of untrained weights


@MODELS.register_module()
class FasterRCNN(Detector2D):
    """The detector, without its backbone and neck.

    Args:
        class_names: names of all classes; labels are positions in it.
        channels: width C of the maps.
        hidden_channels: width of the box head's two layers.
        proposals: further arguments of ``RegionProposalNetwork``.
        detections: arguments of ``DetectionFilter``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        channels: int = 256,
        hidden_channels: int = 1024,
        proposals: Mapping[str, Any] | None = None,
        detections: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.proposals = RegionProposalNetwork(channels, **(proposals or {}))
        self.box_head = BoxHead(len(class_names), channels, hidden_channels)
        self.filter = DetectionFilter(**(detections or {}))

    def forward(
        self, maps: Sequence[Tensor], sizes: Tensor, objects: ImageBoxes | None = None
    ) -> tuple[ImageDetections, dict[str, Tensor]]:
        """See ``Detector2D``."""
        logits, deltas = self.proposals(maps)
        proposals = self.proposals.propose(logits, deltas, sizes, training=self.training)
        losses = {}
        if objects is not None:
            losses = self.proposals.loss(logits, deltas, objects) | self.box_head.loss(maps, proposals, objects)
        with torch.no_grad():
            boxes, scores = self.box_head.detect(maps, proposals, sizes)
        return self.filter(boxes, scores, proposals.images, len(sizes)), losses


class BoxHead(nn.Module):
    """Two layers on the 7 x 7 cells of a box, then a class and one change of shape for each class.

    Args:
        num_classes: K; one more logit stands for background.
        channels: width C of the maps.
        hidden_channels: width of both layers.
    """

    def __init__(self, num_classes: int, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.ModuleList(
            [nn.Linear(channels * POOLED_CELLS**2, hidden_channels), nn.Linear(hidden_channels, hidden_channels)]
        )
        self.classes = nn.Linear(hidden_channels, num_classes + 1)
        self.deltas = nn.Linear(hidden_channels, 4 * num_classes)
        self.coder = BoxDeltas(stds=(0.1, 0.1, 0.2, 0.2))
        self.assigner = IoUAssigner(positive=0.5, negative=0.5, at_least=0.5)
        for layer, std in ((self.classes, CLASS_STD), (self.deltas, BOX_STD)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,  # [P, 4]
        images: Tensor,  # [P]
    ) -> tuple[Tensor, Tensor]:
        """Return class logits ``[P, K + 1]``, background last, and changes ``[P, K, 4]``."""
        return self.judge(pool_boxes(maps[:POOLED_LEVELS], boxes, images, POOLED_CELLS))

    def judge(
        self,
        cells: Tensor,  # [P, C, 7, 7]
    ) -> tuple[Tensor, Tensor]:
        """Return ``forward`` for what the boxes show."""
        x = cells.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.classes(x), self.deltas(x).unflatten(1, (self.num_classes, 4))

    def detect(self, maps: Sequence[Tensor], proposals: Proposals, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes ``[P, K, 4]``, cut to their image, and scores ``[P, K]`` of all proposals."""
        logits, deltas = self(maps, proposals.boxes, proposals.images)
        return self.decode(logits, deltas, proposals.boxes, sizes[proposals.images])

    def decode(
        self,
        logits: Tensor,  # [P, K + 1]
        deltas: Tensor,  # [P, K, 4]
        boxes: Tensor,  # [P, 4]
        sizes: Tensor,  # [P, 2]
    ) -> tuple[Tensor, Tensor]:
        """Return ``detect`` for what ``forward`` made of boxes in images of ``sizes`` (height, width)."""
        moved = self.coder.decode(boxes[:, None], deltas.float(), sizes[:, None].to(boxes))
        return moved, logits.float().softmax(dim=1)[:, :-1]

    def loss(self, maps: Sequence[Tensor], proposals: Proposals, objects: ImageBoxes) -> dict[str, Tensor]:
        """Return the losses of some proposals and the objects themselves."""
        drawn = [self._draw(number, proposals, objects) for number in range(objects.num_images)]
        boxes, images, rows = (torch.cat(each) for each in zip(*drawn, strict=True))
        logits, deltas = self(maps, boxes, images)
        positive = (rows >= 0).nonzero()[:, 0]
        labels = torch.full_like(rows, self.num_classes)
        labels[positive] = objects.labels[rows[positive]]
        wanted = self.coder.encode(boxes[positive], objects.boxes[rows[positive]])
        change = deltas.float()[positive, labels[positive]]
        count = max(len(rows), 1)
        return {
            "loss_roi_class": F.cross_entropy(logits.float(), labels, reduction="sum") / count,
            "loss_roi_box": (change - wanted).abs().sum() / count,
        }

    def _draw(self, number: int, proposals: Proposals, objects: ImageBoxes) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, their image, and the row of the object of each (-1 is background)."""
        own = objects.of_image(number)
        boxes = torch.cat([objects.boxes[own], proposals.boxes[proposals.images == number]])
        found = self.assigner(boxes, objects.boxes[own])
        found[: len(own)] = torch.arange(len(own), device=found.device)
        positive, negative = draw(found, SAMPLES, POSITIVE_SHARE)
        chosen = torch.cat([positive, negative])
        rows = torch.cat([own[found[positive]], torch.full_like(negative, -1)])
        return boxes[chosen], torch.full_like(rows, number), rows
