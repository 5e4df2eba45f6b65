"""From which level of a pyramid the features of a box are taken, and how many.

    level = floor(log2(sqrt(area) / 56)),  from the finest one (0) to the coarsest

Source: FPN (Lin et al., CVPR 2017), equation 1, with the finest level at stride 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

POOLED_LEVELS = 4  # of a pyramid, from which boxes in images are pooled, the finest ones
POOLED_CELLS = 7  # of a pooled box, along each side
FINEST = 56.0  # pixels; boxes that are smaller than twice that look at the finest level
EPS = 1e-6


def box_levels(
    boxes: Tensor,  # [R, 4]
    num_levels: int,
) -> Tensor:  # [R]
    """Return the level of each box, int64."""
    side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=0).sqrt()
    return (side / FINEST + EPS).log2().floor().clamp(0, num_levels - 1).long()


def rows_by_level(
    boxes: Tensor,  # [R, 4]
    num_levels: int,
) -> tuple[list[Tensor], Tensor]:
    """Return the rows of each level, int64, and for each box its place ``[R]`` in all of them, one after the other.

    Raises:
        ValueError: if a coordinate is not finite.
    """
    finite = boxes.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise ValueError(f"boxes: {int((~finite).sum())} of {len(boxes)} are not finite; are the maps they come from?")
    levels = box_levels(boxes, num_levels)
    rows = [(levels == number).nonzero()[:, 0] for number in range(num_levels)]
    return rows, torch.cat(rows).argsort()
