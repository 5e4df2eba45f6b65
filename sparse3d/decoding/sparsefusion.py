"""From what SparseFusion's candidates say to boxes.

    1. box:   (x, y) = center * cell size + lower,  z = height,  size = exp(dim),  yaw = atan2(sin, cos)
    2. score of class c = sigmoid(logit of c) * heat, for the class that the candidate's peak is of, 0 for the others;
       a camera's candidate counts half, and not at all where its camera decoder takes it for another class
    3. label: the class of the highest score, the first one where all are 0
    4. keep what has the centre of its lower face in the centre range
    5. a box that a better one of its class lies near to goes: squared distance of centres <= threshold of the class

The published threshold bounds the squared distance, though it looks like a distance (`distance`); its boxes of score 0
stay (`keep_zero_scores`).

Source: SparseFusion (Xie et al., ICCV 2023), section 3.5, as in its published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Detections, Grid

CAMERA_SHARE = 0.5
DISTANCES = ("squared", "metres")


@dataclass(frozen=True)
class CandidateHeat:
    """Where the candidates of a batch come from, those of the LiDAR first.

    Args:
        labels: ``[B, Q]`` int64, class that each is a peak of.
        heat: ``[B, Q]``, the peak's height in ``[0, 1]``.
    """

    labels: Tensor
    heat: Tensor

    @classmethod
    def join(
        cls,
        lidar_labels: Tensor,  # [B, P]
        lidar_heat: Tensor,  # [B, P]
        camera_labels: Tensor,  # [B, Q]
        camera_heat: Tensor,  # [B, Q]
        camera_logits: Tensor,  # [B, Q, K]
    ) -> CandidateHeat:
        """Weigh the candidates of both detectors; see step 2."""
        agrees = camera_logits.argmax(dim=-1) == camera_labels
        return cls(
            torch.cat([lidar_labels, camera_labels], dim=1),
            torch.cat([lidar_heat, camera_heat * agrees * CAMERA_SHARE], dim=1),
        )


@dataclass(frozen=True)
class SparseFusionDecoder:
    """Steps 1 to 5.

    Args:
        class_names: names of all classes.
        center_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, bounds included.
        nms_thresholds: class name -> distance within which the worse box goes; other classes are not suppressed.
        distance: what the thresholds bound: ``"squared"`` distances in square metres, as published, or ``"metres"``.
        keep_zero_scores: keep boxes of score 0, as published.

    Raises:
        ValueError: if a class or ``distance`` is unknown.
    """

    class_names: Sequence[str]
    center_range: Sequence[float]
    nms_thresholds: Mapping[str, float] = field(default_factory=dict)
    distance: str = "squared"
    keep_zero_scores: bool = True

    def __post_init__(self) -> None:
        """Check the names."""
        unknown = sorted(set(self.nms_thresholds) - set(self.class_names))
        if unknown:
            raise ValueError(f"nms_thresholds: {unknown} are none of the classes {list(self.class_names)}")
        if self.distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {self.distance!r}")

    def decode(
        self,
        codes: Mapping[str, Tensor],  # [B, Q, 1 to 3] each
        logits: Tensor,  # [B, Q, K]
        origins: CandidateHeat,
        grid: Grid,
    ) -> list[Detections]:
        """Turn what the candidates say into each sample's boxes, in descending order of score.

        Args:
            codes: by branch, ``center`` in cells.
            logits: class logits.
            origins: where the candidates come from.
            grid: the grid of the cells.
        """
        boxes = decode_boxes({name: code.float() for name, code in codes.items()}, grid)
        own = logits.float().gather(2, origins.labels[..., None])[..., 0]
        scores = own.sigmoid() * origins.heat
        labels = torch.where(scores > 0, origins.labels, 0)
        kept = self._in_range(boxes)
        if not self.keep_zero_scores:
            kept = kept & (scores > 0)
        kept = self._suppress(boxes, scores, labels, kept)
        return [self._best(*each) for each in zip(boxes, scores, labels, kept, strict=True)]

    def _in_range(self, boxes: Tensor) -> Tensor:
        low, high = boxes.new_tensor(self.center_range).split(3)
        lower_faces = torch.cat([boxes[..., :2], boxes[..., 2:3] - boxes[..., 5:6] / 2], dim=-1)
        return ((lower_faces >= low) & (lower_faces <= high)).all(dim=-1)

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        """Return the mask ``[B, Q]`` of boxes that are left; see step 5.

        A box goes if one that stays is better and near: starting with all, this is repeated until nothing changes.
        Each round settles at least the best box that is not settled yet.
        """
        reach = boxes.new_tensor([self.nms_thresholds.get(name, -1.0) for name in self.class_names])
        reach = reach if self.distance == "squared" else reach.square() * reach.sign()
        offsets = boxes[:, :, None, :2] - boxes[:, None, :, :2]
        near = offsets.square().sum(dim=-1) <= reach[labels][..., None]
        better = scores[:, None] > scores[:, :, None]
        rivals = near & better & (labels[:, :, None] == labels[:, None]) & kept[:, None]
        left, before = kept, None
        while before is None or bool((left != before).any()):
            left, before = kept & ~(rivals & left[:, None]).any(dim=-1), left
        return left

    @staticmethod
    def _best(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor) -> Detections:
        rows = kept.nonzero()[:, 0]
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
        return Detections(Boxes3D(boxes[rows]), scores[rows], labels[rows])


def decode_boxes(codes: Mapping[str, Tensor], grid: Grid) -> Tensor:
    """Turn codes ``[..., 1 to 3]`` by branch into boxes ``[..., 9]``; see step 1."""
    lower, cell = (codes["center"].new_tensor(values[:2]) for values in (grid.lower, grid.cell_size))
    sin, cos = codes["rot"].split(1, dim=-1)
    parts = [codes["center"] * cell + lower, codes["height"], codes["dim"].exp(), torch.atan2(sin, cos), codes["vel"]]
    return torch.cat(parts, dim=-1)
