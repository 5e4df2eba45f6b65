"""Features of boxes, each from the level of a pyramid that suits its size.

    level = floor(log2(sqrt(area) / 56)),  from the finest one (0) to the coarsest

Source: FPN (Lin et al., CVPR 2017), equation 1, with the finest level at stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d_ops import roi_align

FINEST = 56.0  # pixels; boxes that are smaller than twice that look at the finest level
EPS = 1e-6


def box_levels(
    boxes: Tensor,  # [R, 4]
    num_levels: int,
) -> Tensor:  # [R]
    """Return the level of each box, int64."""
    side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=0).sqrt()
    return (side / FINEST + EPS).log2().floor().clamp(0, num_levels - 1).long()


def pool_boxes(
    maps: Sequence[Tensor],
    boxes: Tensor,  # [R, 4]
    images: Tensor,  # [R]
    output_size: int,
    sampling_ratio: int = 0,
) -> Tensor:  # [R, C, P, P]
    """Return RoIAlign of each box on its level of ``maps`` (``[N, C, h, w]`` each, of strides 4, 8, ...).

    Raises:
        ValueError: if a coordinate is not finite.
    """
    finite = boxes.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise ValueError(f"boxes: {int((~finite).sum())} of {len(boxes)} are not finite; are the maps they come from?")
    levels = box_levels(boxes, len(maps))
    rows = [(levels == number).nonzero()[:, 0] for number in range(len(maps))]
    pooled = [
        roi_align(level, boxes[own], images[own], output_size, 1 / 2 ** (number + 2), sampling_ratio)
        for number, (level, own) in enumerate(zip(maps, rows, strict=True))
    ]
    return torch.cat(pooled)[torch.cat(rows).argsort()]
