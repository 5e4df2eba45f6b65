"""Boxes in images as changes of other boxes.

    dx = (x - x_a) / w_a / σ_x,    dw = ln(w / w_a) / σ_w         (x, y) the middle, (w, h) the size, a the other box

Source: R-CNN (Girshick et al., CVPR 2014), appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxDeltas:
    """The way to and fro.

    Args:
        stds: σ of x, y, w, h.
        growth: ``(low, high)``, factors by which a side changes at least and at most when it is decoded.
    """

    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    growth: tuple[float, float] = (16 / 1000, 1000 / 16)

    def encode(
        self,
        boxes: Tensor,  # [..., 4]
        targets: Tensor,  # [..., 4]
    ) -> Tensor:  # [..., 4]
        """Return the changes that make ``targets`` of ``boxes``."""
        center, size = _center_and_size(boxes)
        target_center, target_size = _center_and_size(targets)
        deltas = torch.cat([(target_center - center) / size, (target_size / size).log()], dim=-1)
        return deltas / deltas.new_tensor(self.stds)

    def decode(
        self,
        boxes: Tensor,  # [..., 4]
        deltas: Tensor,  # [..., 4]
        sizes: Tensor | None = None,  # [..., 2]
    ) -> Tensor:  # [..., 4]
        """Return what ``deltas`` make of ``boxes``, cut to images of ``sizes`` (height, width) if these are given."""
        center, size = _center_and_size(boxes)
        shift, growth = (deltas * deltas.new_tensor(self.stds)).split(2, dim=-1)
        center = center + size * shift
        low, high = (math.log(factor) if factor else -math.inf for factor in self.growth)
        half = size * growth.clamp(low, high).exp() / 2
        decoded = torch.cat([center - half, center + half], dim=-1)
        if sizes is None:
            return decoded
        return torch.minimum(decoded.clamp(min=0), sizes[..., [1, 0, 1, 0]])


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
