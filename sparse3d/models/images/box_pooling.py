"""Features of boxes, each from the level of a pyramid that suits its size (`encoding/box_levels.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d.encoding.box_levels import rows_by_level
from sparse3d_ops import roi_align


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
    rows, places = rows_by_level(boxes, len(maps))
    pooled = [
        roi_align(level, boxes[own], images[own], output_size, 1 / 2 ** (number + 2), sampling_ratio)
        for number, (level, own) in enumerate(zip(maps, rows, strict=True))
    ]
    return torch.cat(pooled)[places]
