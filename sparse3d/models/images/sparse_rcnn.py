"""Sparse R-CNN: learned boxes with learned features, which refine each other in a cascade; no anchors, no proposals.

    f ← LN(f + attention(f));   f ← LN(f + dynamic(RoIAlign(box), f));   f ← LN(f + FFN(f))
    box ← box changed by Δ(f),    classes ← logits(f)              in each of the stages, boxes detached between them

Matching and losses: `sparse_rcnn_loss.py`.

Source: Sparse R-CNN (Sun et al., CVPR 2021), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.box_deltas import BoxDeltas
from sparse3d.decoding.image_boxes import DetectionFilter, ImageBoxes, ImageDetections
from sparse3d.encoding.box_levels import POOLED_CELLS, POOLED_LEVELS
from sparse3d.registry import MODELS

from ..layers.attention import PackedAttention
from ..layers.precision import full_precision
from .box_pooling import pool_boxes
from .detector_2d import Detector2D
from .sparse_rcnn_loss import SparseRCNNLoss

SAMPLES = 2  # of a cell, along each side
UNTRAINED_SCORE = 0.01
LARGEST = 100000 / 16  # factor by which a side grows at most in one stage


@MODELS.register_module()
class SparseRCNN(Detector2D):
    """The detector, without its backbone and neck.

    Args:
        class_names: names of all classes; labels are positions in it.
        num_proposals: learned boxes P.
        num_stages: stages of the cascade.
        channels: width C of maps and features.
        stage: further arguments of ``Stage``.
        scoring: ``"sigmoid"``, as published, or ``"softmax"`` with one more logit for background.
        loss: further arguments of ``SparseRCNNLoss``.
        detections: arguments of ``DetectionFilter``; the published 2D detector keeps the best pairs of a box and a
            class and suppresses none.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        num_proposals: int = 100,
        num_stages: int = 6,
        channels: int = 256,
        stage: Mapping[str, Any] | None = None,
        scoring: str = "sigmoid",
        loss: Mapping[str, Any] | None = None,
        detections: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.loss = SparseRCNNLoss(scoring=scoring, **(loss or {}))
        self.softmax = scoring == "softmax"
        num_logits = len(class_names) + self.softmax
        self.proposal_boxes = nn.Parameter(torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(num_proposals, 1))
        self.proposal_features = nn.Parameter(torch.randn(num_proposals, channels))
        self.stages = nn.ModuleList(Stage(num_logits, channels, **(stage or {})) for _ in range(num_stages))
        self.filter = DetectionFilter(**(detections or {}))

    @full_precision
    def forward(
        self, maps: Sequence[Tensor], sizes: Tensor, objects: ImageBoxes | None = None
    ) -> tuple[ImageDetections, dict[str, Tensor]]:
        """See ``Detector2D``."""
        maps = [level.float() for level in maps[:POOLED_LEVELS]]
        logits, boxes, features = self.refine(maps, self.start_boxes(sizes), self.proposal_features)
        losses = {} if objects is None else self.loss(logits, boxes, sizes, objects)
        return self._detect(logits[-1].detach(), boxes[-1].detach(), features.detach()), losses

    def start_boxes(self, sizes: Tensor) -> Tensor:
        """Return the learned boxes ``[N, P, 4]`` in images of ``sizes`` ``[N, 2]`` (height, width)."""
        center, size = self.proposal_boxes.split(2, dim=1)
        corners = torch.cat([center - size / 2, center + size / 2], dim=1)
        return corners * sizes[:, None, [1, 0, 1, 0]].to(corners)

    def refine(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,  # [N, P, 4]
        features: Tensor,  # [P, C]
    ) -> tuple[Tensor, Tensor, Tensor]:  # [stages, N, P, K], [stages, N, P, 4], [N, P, C]
        """Return class logits and boxes of all stages, and the features of the last one."""
        features = features.expand(len(boxes), -1, -1)
        all_logits, all_boxes = [], []
        for stage in self.stages:
            logits, boxes, features = stage(maps, boxes, features)
            all_logits.append(logits)
            all_boxes.append(boxes)
            boxes = boxes.detach()
        return torch.stack(all_logits), torch.stack(all_boxes), features

    def _detect(self, logits: Tensor, boxes: Tensor, features: Tensor) -> ImageDetections:
        """Return the best P pairs of a box and a class of each image, those that pass the filter."""
        number, count = boxes.shape[:2]
        scores = logits.softmax(dim=-1)[..., :-1] if self.softmax else logits.sigmoid()
        least = scores.flatten(1).topk(count, dim=1).values[:, -1]
        scores = scores.where(scores >= least[:, None, None], 0).flatten(0, 1)
        images = torch.arange(number, device=boxes.device).repeat_interleave(count)
        by_class = boxes.flatten(0, 1)[:, None].expand(-1, scores.shape[1], -1)
        return self.filter(by_class, scores, images, number, features.flatten(0, 1))


class Stage(nn.Module):
    """One stage of the cascade.

    Args:
        num_logits: class logits K.
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dynamic_channels: hidden width of the dynamic convolution.
        class_layers: hidden layers before the class logits.
        box_layers: hidden layers before the changes of the box.
    """

    def __init__(
        self,
        num_logits: int,
        channels: int = 256,
        num_heads: int = 8,
        ffn_channels: int = 2048,
        dynamic_channels: int = 64,
        class_layers: int = 1,
        box_layers: int = 3,
    ) -> None:
        super().__init__()
        self.attention = PackedAttention(channels, num_heads)
        self.interaction = DynamicConv(channels, dynamic_channels)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.class_tower = _tower(channels, class_layers)
        self.box_tower = _tower(channels, box_layers)
        self.classes = nn.Linear(channels, num_logits)
        self.deltas = nn.Linear(channels, 4)
        self.coder = BoxDeltas(stds=(0.5, 0.5, 1.0, 1.0), growth=(0.0, LARGEST))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.classes.bias, -math.log(1 / UNTRAINED_SCORE - 1))

    def forward(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,  # [N, P, 4]
        features: Tensor,  # [N, P, C]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits ``[N, P, K]``, boxes ``[N, P, 4]`` and features ``[N, P, C]``."""
        images = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        cells = pool_boxes(maps, boxes.flatten(0, 1), images, POOLED_CELLS, SAMPLES)
        return self.interact(cells, boxes, features)

    def interact(
        self,
        cells: Tensor,  # [N P, C, 7, 7]
        boxes: Tensor,
        features: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``forward`` for what the boxes show."""
        features = self.norm1(features + self.attention(features, features, features))
        seen = self.interaction(cells.flatten(2).transpose(1, 2), features.flatten(0, 1))
        features = self.norm2(features + seen.view_as(features))
        features = self.norm3(features + self.linear2(F.relu(self.linear1(features))))
        deltas = self.deltas(self.box_tower(features))
        return self.classes(self.class_tower(features)), self.coder.decode(boxes, deltas), features


class DynamicConv(nn.Module):
    """Two 1 x 1 convolutions of a box's cells whose weights its feature generates.

    Args:
        channels: width C.
        hidden_channels: width D between the two.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.generator = nn.Linear(channels, 2 * channels * hidden_channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for width in (hidden_channels, channels, channels))
        self.out_proj = nn.Linear(channels * POOLED_CELLS**2, channels)

    def forward(
        self,
        cells: Tensor,  # [R, 49, C]
        features: Tensor,  # [R, C]
    ) -> Tensor:  # [R, C]
        """Return what the features see in the cells."""
        first, second = self.generator(features).chunk(2, dim=1)
        hidden = F.relu(self.norm1(cells @ first.unflatten(1, (-1, self.hidden_channels))))
        seen = F.relu(self.norm2(hidden @ second.unflatten(1, (self.hidden_channels, -1))))
        return F.relu(self.norm3(self.out_proj(seen.flatten(1))))


def _tower(channels: int, num_layers: int) -> nn.Sequential:
    layers = [(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()) for _ in range(num_layers)]
    return nn.Sequential(*(part for layer in layers for part in layer))
