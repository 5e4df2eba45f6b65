"""Which object a box is to find, by IoU, and which boxes are learned from.

    an object      IoU >= positive with it, the best one counts; or, of all boxes, the largest IoU with it
    background     no IoU reaches negative
    nothing        what lies between

Source: Faster R-CNN (Ren et al., NIPS 2015), sections 3.1.2 and 3.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d_ops import iou_2d

BACKGROUND, NOTHING = -1, -2


@dataclass(frozen=True)
class IoUAssigner:
    """Gives boxes an object.

    Args:
        positive: IoU from which a box has the object that it overlaps most.
        negative: IoU below which it is background.
        at_least: IoU from which the boxes that overlap an object most have it, whatever else holds.
    """

    positive: float
    negative: float
    at_least: float

    def __call__(
        self,
        boxes: Tensor,  # [P, 4]
        objects: Tensor,  # [M, 4]
    ) -> Tensor:  # [P]
        """Return int64: row of the object of each box, ``BACKGROUND`` or ``NOTHING``."""
        if len(objects) == 0:
            return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
        ious = iou_2d(boxes, objects)
        best, found = ious.max(dim=1)
        found = found.where(best >= self.positive, NOTHING).where(best >= self.negative, BACKGROUND)
        most = ious.max(dim=0).values
        nearest = (ious == most) & (most >= self.at_least)
        last = len(objects) - 1 - nearest.flip(1).int().argmax(dim=1)
        return torch.where(nearest.any(dim=1), last, found)


def draw(
    found: Tensor,  # [P]
    count: int,
    positive_share: float,
) -> tuple[Tensor, Tensor]:  # [A], [B]
    """Draw boxes to learn from, without order: rows int64 of those with an object, and of background.

    There are at most ``count`` in all, and at most ``positive_share`` of that with an object; background fills up.
    Draws come from torch's own generator.
    """
    with_object, background = ((each).nonzero()[:, 0] for each in (found >= 0, found == BACKGROUND))
    with_object = _some(with_object, int(count * positive_share))
    return with_object, _some(background, count - len(with_object))


def _some(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) <= count else rows[torch.randperm(len(rows), device=rows.device)[:count]]
