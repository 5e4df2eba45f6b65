"""TransFusion's training targets: heat maps for the queries' places, one object for each of some queries.

    cost   = 0.15 focal(class) + 0.25 |xy - xy'| / extent of the range - 0.25 IoU
    codes: center = (xy - lower) / cell size,  height = z + h / 2,  dim = log (l, w, h),  rot = (sin yaw, cos yaw),
           vel = (vx, vy)

The heat maps' first axis is x: the head's maps are transposed (see `heads/transfusion_head.py`).

Source: TransFusion (Bai et al., CVPR 2022), section 3.4, as in DSVT's published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops import iou_3d

from .gaussian import draw_gaussians, object_radii
from .ground_truth import GroundTruth
from .hungarian import focal_cost, l1_cost, match


@dataclass(frozen=True)
class TransFusionTargets:
    """Targets of a batch.

    Args:
        heatmap: ``[B, K, X, Y]`` float32 in ``[0, 1]``, 1 at the centre cells.
        labels: ``[B, Q]`` int64, class of each query's object, K where it has none.
        queries: ``[M]`` int64, ``b * Q + q`` of the queries that have an object, ascending.
        codes: ``[M, 1 to 3]`` float32 for each branch, see the top of the file; ``vel`` is NaN where it is unknown.
        boxes: ``[M, 9]`` float32, the queries' objects.
        ious: ``[M]`` 3D IoU of each query's box and its object, as the matching saw it.
    """

    heatmap: Tensor
    labels: Tensor
    queries: Tensor
    codes: dict[str, Tensor]
    boxes: Tensor
    ious: Tensor


@dataclass(frozen=True)
class TransFusionTargetAssigner:
    """Draws heat maps and matches queries with objects.

    Args:
        grid: the grid; its stride gives the head's cells.
        overlap: IoU that a box shifted by a Gaussian's radius still has.
        min_radius: smallest radius of a Gaussian, in cells.
        class_cost: weight of the focal cost.
        center_cost: weight of the distance of centres, in parts of the point range.
        iou_cost: weight of the 3D IoU.
        alpha: of the focal cost.
        gamma: of the focal cost.
        center_as_bottom: measure the IoU as if the centre of a box were its bottom face, as the published code does:
            boxes of different heights overlap more or less than they should. Training recipes are tuned to it.
    """

    grid: Grid
    overlap: float = 0.1
    min_radius: int = 2
    class_cost: float = 0.15
    center_cost: float = 0.25
    iou_cost: float = 0.25
    alpha: float = 0.25
    gamma: float = 2.0
    center_as_bottom: bool = True

    def __call__(
        self,
        logits: Tensor,  # [B, Q, K]
        boxes: Tensor,  # [B, Q, 7+]
        truth: GroundTruth,
    ) -> TransFusionTargets:
        """Make the targets of a batch.

        Args:
            logits: class logits of the queries.
            boxes: boxes of the queries.
            truth: the objects; those of a size of 0 or less are left out.

        Raises:
            ValueError: if a prediction or an object is not finite.
        """
        truth = truth[(truth.boxes.sizes > 0).all(dim=1)]
        num_classes = logits.shape[2]
        queries, objects, ious = self.match(logits.detach(), boxes.detach(), truth)
        labels = torch.full(logits.shape[:2], num_classes, device=logits.device)
        labels.view(-1)[queries] = truth.labels[objects]
        matched = truth.boxes[objects]
        return TransFusionTargets(
            heatmap=self.draw(truth, num_classes),
            labels=labels,
            queries=queries,
            codes=encode_boxes(matched, self.grid),
            boxes=matched.tensor,
            ious=ious,
        )

    def draw(self, truth: GroundTruth, num_classes: int) -> Tensor:
        """Return the heat maps ``[B, K, X, Y]``."""
        shape = self.grid.out_shape[::-1]
        cells = encode_centers(truth.boxes, self.grid).long().flip(1)
        radii = object_radii(truth.boxes, self.grid, self.overlap, self.min_radius)
        maps = truth.batch_index * num_classes + truth.labels
        flat = draw_gaussians(cells, radii, maps, truth.batch_size * num_classes, shape)
        return flat.view(truth.batch_size, num_classes, *shape)

    def match(self, logits: Tensor, boxes: Tensor, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``[M]`` as ``b * Q + q``, rows of ``truth`` ``[M]`` and their IoUs ``[M]``."""
        queries, objects, ious = [], [], []
        for sample in range(truth.batch_size):
            rows = (truth.batch_index == sample).nonzero()[:, 0]
            own = truth[rows]
            overlap = iou_3d(self.stand(boxes[sample]), self.stand(own.boxes.tensor))
            cost = (
                self.class_cost * focal_cost(logits[sample], own.labels, self.alpha, self.gamma)
                + self.center_cost * l1_cost(self._in_range(boxes[sample]), self._in_range(own.boxes.tensor))
                - self.iou_cost * overlap
            )
            query, row = match(cost)
            queries.append(query + sample * boxes.shape[1])
            objects.append(rows[row])
            ious.append(overlap[query, row])
        return torch.cat(queries), torch.cat(objects), torch.cat(ious)

    def stand(self, boxes: Tensor) -> Tensor:
        """Return boxes ``[N, 7]`` whose overlap is to be measured; see ``center_as_bottom``."""
        standing = boxes[:, :7].clone()
        if self.center_as_bottom:
            standing[:, 2] += standing[:, 5] / 2
        return standing

    def _in_range(self, boxes: Tensor) -> Tensor:
        """Return centres ``[N, 2]`` ``(x, y)``, 0 at the lower end of the point range and 1 at its upper end."""
        lower, upper = (boxes.new_tensor(values[:2]) for values in (self.grid.lower, self.grid.upper))
        return (boxes[:, :2] - lower) / (upper - lower)


def encode_centers(boxes: Boxes3D, grid: Grid) -> Tensor:
    """Return centres ``[N, 2]`` ``(x, y)`` in cells of the grid's output."""
    lower, cell = (boxes.tensor.new_tensor(values[:2]) for values in (grid.lower, grid.cell_size))
    return (boxes.centers[:, :2] - lower) / cell


def encode_boxes(boxes: Boxes3D, grid: Grid) -> dict[str, Tensor]:
    """Return regression codes ``[N, 1 to 3]`` by branch; see the top of the file."""
    yaws = boxes.yaws
    return {
        "center": encode_centers(boxes, grid),
        "height": boxes.centers[:, 2:] + boxes.sizes[:, 2:] / 2,
        "dim": boxes.sizes.log(),
        "rot": torch.stack([yaws.sin(), yaws.cos()], dim=1),
        "vel": boxes.velocities,
    }
