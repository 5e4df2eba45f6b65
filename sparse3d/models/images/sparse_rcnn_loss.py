"""Matching and losses of Sparse R-CNN, of every stage alike.

    cost = 2 class + 5 l1 + 2 (-giou)          class: focal cost, or minus the soft-max probability
    loss = 2 class + 5 l1 + 2 (1 - giou)       sums over the objects, divided by their number

l1 is that of corners divided by the size of the image; giou is taken in pixels.

Source: Sparse R-CNN (Sun et al., CVPR 2021), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.decoding.image_boxes import ImageBoxes
from sparse3d_ops import giou_2d, giou_2d_paired

from ..losses import mean_count, query_focal_loss
from ..targets.hungarian import focal_cost, l1_cost, match

SCORINGS = ("sigmoid", "softmax")
FOCAL_EPS = 1e-8


@dataclass(frozen=True)
class SparseRCNNLoss:
    """The loss of a batch.

    Args:
        scoring: of the classes, ``"sigmoid"`` or ``"softmax"`` with background last.
        class_weight: of the classes, in cost and loss.
        l1_weight: of the distance of corners.
        giou_weight: of the generalised IoU.
        background_weight: of boxes without an object in the soft-max loss.

    Raises:
        ValueError: if ``scoring`` is another word.
    """

    scoring: str = "sigmoid"
    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    background_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring must be one of {', '.join(SCORINGS)}, got {self.scoring!r}")

    def __call__(
        self,
        logits: Tensor,  # [stages, N, P, K]
        boxes: Tensor,  # [stages, N, P, 4]
        sizes: Tensor,  # [N, 2] height, width
        objects: ImageBoxes,
    ) -> dict[str, Tensor]:
        """Return the losses (scalars); those of all stages but the last begin with ``d0.``, ``d1.`` ..."""
        extents = sizes[:, [1, 0, 1, 0]].to(boxes)
        losses = {}
        for number, (own_logits, own_boxes) in enumerate(zip(logits, boxes, strict=True)):
            prefix = "" if number == len(logits) - 1 else f"d{number}."
            found = self.match(own_logits, own_boxes, extents, objects)
            stage = self.of_stage(own_logits, own_boxes, extents, objects, found)
            losses |= {f"{prefix}loss_{name}": value for name, value in stage.items()}
        return losses

    def match(
        self,
        logits: Tensor,  # [N, P, K]
        boxes: Tensor,  # [N, P, 4]
        extents: Tensor,  # [N, 4]
        objects: ImageBoxes,
    ) -> tuple[Tensor, Tensor]:  # [M], [M]
        """Return boxes ``n * P + p`` and their objects, int64."""
        queries, rows = [], []
        for number in range(objects.num_images):
            own = objects.of_image(number)
            cost = self._cost(logits[number].detach(), boxes[number].detach(), extents[number], objects, own)
            query, column = match(cost)
            queries.append(query + number * boxes.shape[1])
            rows.append(own[column])
        return torch.cat(queries), torch.cat(rows)

    def _cost(self, logits: Tensor, boxes: Tensor, extent: Tensor, objects: ImageBoxes, own: Tensor) -> Tensor:
        labels, wanted = objects.labels[own], objects.boxes[own]
        if self.scoring == "sigmoid":
            by_class = focal_cost(logits, labels, eps=FOCAL_EPS)
        else:
            by_class = -logits.softmax(dim=-1)[:, labels]
        by_corners = l1_cost(boxes / extent, wanted / extent)
        by_overlap = -giou_2d(boxes, wanted)
        return self.class_weight * by_class + self.l1_weight * by_corners + self.giou_weight * by_overlap

    def of_stage(
        self,
        logits: Tensor,
        boxes: Tensor,
        extents: Tensor,
        objects: ImageBoxes,
        found: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Return the losses ``class``, ``l1`` and ``giou`` of a stage."""
        queries, rows = found
        count = mean_count(len(objects.labels)).to(logits)
        matched, wanted = boxes.flatten(0, 1)[queries], objects.boxes[rows]
        extent = extents[objects.images[rows]]
        apart = (matched / extent - wanted / extent).abs().sum()
        return {
            "class": self.class_weight * self._class_loss(logits.flatten(0, 1), queries, objects.labels[rows], objects),
            "l1": self.l1_weight * apart / count,
            "giou": self.giou_weight * (1 - giou_2d_paired(matched, wanted)).sum() / count,
        }

    def _class_loss(self, logits: Tensor, queries: Tensor, labels: Tensor, objects: ImageBoxes) -> Tensor:
        softmax = self.scoring == "softmax"
        background = logits.shape[1] - softmax
        targets = torch.full((len(logits),), background, device=logits.device)
        targets[queries] = labels
        if not softmax:
            return query_focal_loss(logits, targets, len(objects.labels))
        weights = logits.new_ones(logits.shape[1])
        weights[background] = self.background_weight
        return F.cross_entropy(logits, targets, weights)
