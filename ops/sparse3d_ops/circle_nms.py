"""Suppression by the distance of centres, in plain torch: a few hundred boxes a class need no kernel of their own.

Source: CenterPoint (Yin et al., CVPR 2021), whose published code compares its radii with squared distances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import FLOATS, INTEGERS, check_count, check_finite, check_same_device, check_tensor
from .boxes import settle
from .segment import Segments


def nms_circle(
    centers: Tensor,  # [N, 2]
    scores: Tensor,  # [N]
    squared_distance: float,
    *,
    batch_index: Tensor | None = None,  # [N]
    max_output: int | None = None,
) -> Tensor:
    """Suppress centres that have a better one nearby.

    In descending order of score (the lower row first among equals) a centre is kept unless a kept one of the same
    sample is as near or nearer.

    Args:
        centers: ``[N, 2]`` ``(x, y)`` in metres.
        scores: ``[N]`` floating point.
        squared_distance: how near, in square metres, that distance included.
        batch_index: ``[N]`` integer, sample of each centre; None means one sample.
        max_output: centres kept at most in each sample.

    Returns:
        Kept rows int64 in descending order of score.

    Raises:
        ValueError: if a shape or dtype is another one, a number is NaN or infinite, or a bound is negative.
    """
    _check(centers, scores, squared_distance, batch_index, max_output)
    order = scores.argsort(descending=True, stable=True)
    ranked = centers[order]
    sample = torch.zeros_like(order) if batch_index is None else batch_index[order].long()
    near = (ranked[:, None] - ranked).square().sum(dim=-1) <= squared_distance
    keep = settle(near & (sample[:, None] == sample))
    kept, sample = order[keep], sample[keep]
    if max_output is None:
        return kept
    return kept[Segments.from_index(sample, int(sample.max()) + 1 if len(sample) else 0).rank() < max_output]


def _check(
    centers: Tensor, scores: Tensor, squared_distance: float, batch_index: Tensor | None, max_output: int | None
) -> None:
    check_tensor("centers", centers, (None, 2), FLOATS)
    check_tensor("scores", scores, (len(centers),), FLOATS)
    check_finite("centers", centers)
    check_finite("scores", scores)
    if batch_index is not None:
        check_tensor("batch_index", batch_index, (len(centers),), INTEGERS)
    if not squared_distance >= 0:
        raise ValueError(f"squared_distance: must not be negative, got {squared_distance}")
    if max_output is not None:
        check_count("max_output", max_output, 0)
    check_same_device(centers=centers, scores=scores, batch_index=batch_index)
