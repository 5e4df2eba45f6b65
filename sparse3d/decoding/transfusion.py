"""From a TransFusion head's codes to boxes.

    1. box:   (x, y) = center * cell size + lower,  z = height - h / 2,  size = exp(dim),  yaw = atan2(sin, cos)
    2. label: the class whose peak the query started from;   score = sigmoid(its logit) * the peak's heat
    3. keep what exceeds the score threshold and has its centre in the centre range
    4. score = score^(1 - r) * clamp((iou + 1) / 2, 0, 1)^r       with a predicted IoU, r by class
    5. rotated non-maximum suppression inside some classes; in the others every query stays

Source: TransFusion (Bai et al., CVPR 2022), section 3.3, as in DSVT's published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Detections, Grid
from sparse3d_ops import Segments, nms_bev


@dataclass(frozen=True)
class Queries:
    """Where the queries of a batch stand.

    Args:
        cells: ``[B, Q]`` int64 ``u * V + v``.
        labels: ``[B, Q]`` int64, class that each is a peak of.
        heat: ``[B, Q]``, the peak's height in ``[0, 1]``; 0 for fillers where there are fewer peaks than queries.
    """

    cells: Tensor
    labels: Tensor
    heat: Tensor


@dataclass(frozen=True)
class TransFusionDecoder:
    """Steps 1 to 5.

    Args:
        class_names: names of all classes.
        center_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, bounds included, for predicted centres.
        score_threshold: what a score has to exceed before rectification.
        iou_exponents: r of each class, one number for all, or None to leave the scores as they are.
        nms_thresholds: class name -> BEV IoU above which the worse box goes; other classes are not suppressed.
        nms_pre: best boxes of a class that take part, in a sample.
        nms_post: boxes left at most of a class that is suppressed, in a sample.

    Raises:
        ValueError: if a class is unknown, or ``iou_exponents`` has another length than the classes.
    """

    class_names: Sequence[str]
    center_range: Sequence[float]
    score_threshold: float = 0.0
    iou_exponents: float | Sequence[float] | None = None
    nms_thresholds: Mapping[str, float] = field(default_factory=dict)
    nms_pre: int = 1000
    nms_post: int = 100

    def __post_init__(self) -> None:
        """Check the names and lengths."""
        unknown = sorted(set(self.nms_thresholds) - set(self.class_names))
        if unknown:
            raise ValueError(f"nms_thresholds: {unknown} are none of the classes {list(self.class_names)}")
        exponents = self.iou_exponents
        if isinstance(exponents, Sequence) and len(exponents) != len(self.class_names):
            raise ValueError(f"iou_exponents: expected one a class, {len(self.class_names)}, got {len(exponents)}")

    def decode(
        self,
        codes: Mapping[str, Tensor],  # [B, Q, 1 to 3] each
        logits: Tensor,  # [B, Q, K]
        queries: Queries,
        grid: Grid,
    ) -> list[Detections]:
        """Turn what the head regressed into each sample's boxes: steps 1 to 5.

        Args:
            codes: by branch, ``center`` absolute and in cells.
            logits: class logits.
            queries: where the queries started.
            grid: the grid of the head's cells.
        """
        codes = {name: code.float() for name, code in codes.items()}
        iou = codes["iou"][..., 0] if "iou" in codes else None
        return self(decode_boxes(codes, grid), logits.float(), queries, iou)

    def __call__(
        self,
        boxes: Tensor,  # [B, Q, 7 or 9]
        logits: Tensor,  # [B, Q, K]
        queries: Queries,
        iou: Tensor | None = None,  # [B, Q]
    ) -> list[Detections]:
        """Run steps 2 to 5: one ``Detections`` a sample.

        Args:
            boxes: float32, of step 1.
            logits: float32 class logits.
            queries: where the queries started.
            iou: float32, 2 IoU - 1 as predicted, or None.
        """
        batch_size, labels = len(boxes), queries.labels
        scores = logits.gather(2, labels[..., None])[..., 0].sigmoid() * queries.heat
        keep = (scores > self.score_threshold) & self._in_range(boxes)
        scores = self._rectify(scores, labels, iou)[keep]
        batch_index = keep.nonzero()[:, 0]
        boxes, labels = boxes[keep], labels[keep]
        rows = self._suppress(boxes, scores, labels, batch_index, batch_size)
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
        by_sample = [rows[batch_index[rows] == sample] for sample in range(batch_size)]
        return [Detections(Boxes3D(boxes[own]), scores[own], labels[own]) for own in by_sample]

    def _in_range(self, boxes: Tensor) -> Tensor:
        low, high = boxes.new_tensor(self.center_range).split(3)
        return ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(dim=-1)

    def _rectify(self, scores: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        if self.iou_exponents is None or iou is None:
            return scores
        exponent = scores.new_tensor(self.iou_exponents).expand(len(self.class_names))[labels]
        return scores ** (1 - exponent) * ((iou + 1) / 2).clamp(0, 1) ** exponent

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, batch_index: Tensor, batch_size: int) -> Tensor:
        """Return the rows that survive."""
        suppressed = [list(self.class_names).index(name) for name in self.nms_thresholds]
        kept = [(~torch.isin(labels, labels.new_tensor(suppressed))).nonzero()[:, 0]]
        for label, threshold in zip(suppressed, self.nms_thresholds.values(), strict=True):
            rows = (labels == label).nonzero()[:, 0]
            rows = rows[scores[rows].argsort(descending=True, stable=True)]
            rows = rows[Segments.from_index(batch_index[rows], batch_size).rank() < self.nms_pre]
            best = nms_bev(
                boxes[rows], scores[rows], threshold, batch_index=batch_index[rows], max_output=self.nms_post
            )
            kept.append(rows[best])
        return torch.cat(kept)


def decode_boxes(codes: Mapping[str, Tensor], grid: Grid) -> Tensor:
    """Turn codes ``[..., 1 to 3]`` by branch into boxes ``[..., 7 or 9]``; see step 1."""
    lower, cell = (codes["center"].new_tensor(values[:2]) for values in (grid.lower, grid.cell_size))
    sizes = codes["dim"].exp()
    sin, cos = codes["rot"].split(1, dim=-1)
    parts = [codes["center"] * cell + lower, codes["height"] - sizes[..., 2:] / 2, sizes, torch.atan2(sin, cos)]
    if "vel" in codes:
        parts.append(codes["vel"])
    return torch.cat(parts, dim=-1)
