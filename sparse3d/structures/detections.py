"""Detections: what a detector finds in one sample."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .boxes import Boxes3D


@dataclass(frozen=True)
class Detections:
    """Boxes of one sample, in descending order of score.

    Args:
        boxes: M boxes in the LiDAR frame.
        scores: ``[M]`` float32.
        labels: ``[M]`` int64, positions in the class names.
    """

    boxes: Boxes3D
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.boxes)
