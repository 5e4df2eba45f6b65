"""Boxes in images: IoU and suppression.

    box = [x1, y1, x2, y2]      corners in pixels, x1 <= x2, y1 <= y2
    IoU = common / (area_a + area_b - common)

Two boxes without area have IoU 0. No operation here has a gradient but `iou_2d` and `giou_2d_paired`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import FLOATS, check_count, check_finite, check_same_device, check_tensor
from ._numba import boxes_2d as kernels
from ._numba import threads
from .segment import Segments


def iou_2d(
    a: Tensor,  # [N, 4]
    b: Tensor,  # [M, 4]
) -> Tensor:
    """Return the IoU ``[N, M]`` of every pair.

    Raises:
        ValueError: if a shape is another one.
    """
    _check(a=a, b=b)
    common, union = _common_and_union(a[:, None], b[None])
    return common / union.where(union > 0, 1)


def giou_2d(
    a: Tensor,  # [N, 4]
    b: Tensor,  # [M, 4]
) -> Tensor:
    """Return the generalised IoU ``[N, M]`` of every pair: IoU less the share of their hull that neither covers.

    Raises:
        ValueError: if a shape is another one.

    Source: Generalized Intersection over Union (Rezatofighi et al., CVPR 2019).
    """
    _check(a=a, b=b)
    return _giou(a[:, None], b[None])


def giou_2d_paired(
    a: Tensor,  # [N, 4]
    b: Tensor,  # [N, 4]
) -> Tensor:
    """Return ``giou_2d`` of equal rows, ``[N]``."""
    _check(a=a, b=b)
    return _giou(a, b)


def nms_2d(
    boxes: Tensor,  # [N, 4]
    scores: Tensor,  # [N]
    threshold: float,
    *,
    labels: Tensor | None = None,  # [N]
    batch_index: Tensor | None = None,  # [N]
    max_output: int | None = None,
) -> Tensor:
    """Suppress boxes that a better box covers.

    In descending order of score (the lower row first among equals) a box is kept unless a kept box of the same label
    and image overlaps it with an IoU above the threshold.

    Args:
        boxes: ``(x1, y1, x2, y2)`` in pixels.
        scores: floating point.
        threshold: IoU in [0, 1] above which the worse box goes.
        labels: int64; None lets all boxes suppress each other.
        batch_index: int64, image of each box; None means one image.
        max_output: boxes kept at most in each image.

    Returns:
        Kept rows int64 in descending order of score.

    Raises:
        ValueError: if a shape or dtype is another one, a number is NaN or infinite, or the threshold or ``max_output``
            is impossible.
    """
    image, group = _groups(boxes, scores, threshold, labels, batch_index, max_output)
    if boxes.device.type != "cpu":
        return _select(_kept_reference(boxes, scores, group, threshold), scores, image, max_output)
    by_group = _in_order(scores, group)
    keep = torch.zeros(len(boxes), dtype=torch.bool)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(group).cumsum(0)]).numpy()
    if len(boxes):
        bounds = threads.by_load(offsets, len(boxes) ** 2)
        sorted_boxes = boxes.detach()[by_group].double().contiguous().numpy()
        threads.run(kernels.suppress, bounds, sorted_boxes, offsets, threshold, keep.numpy())
    return _select(by_group[keep], scores, image, max_output)


def nms_2d_reference(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    *,
    labels: Tensor | None = None,
    batch_index: Tensor | None = None,
    max_output: int | None = None,
) -> Tensor:
    """``nms_2d`` in plain torch: the one solution of "kept unless a kept better box covers it".

    Each pass settles at least one more box in order of score, so the iteration ends, usually after a few passes.
    """
    image, group = _groups(boxes, scores, threshold, labels, batch_index, max_output)
    return _select(_kept_reference(boxes, scores, group, threshold), scores, image, max_output)


def _kept_reference(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> Tensor:
    """Return the rows that are kept."""
    order = scores.detach().argsort(descending=True, stable=True)
    flat, group = boxes.detach()[order].double(), group[order]
    covers = ((iou_2d(flat, flat) > threshold) & (group[:, None] == group)).triu(diagonal=1)
    keep, previous = ~covers.any(dim=0), torch.ones_like(order, dtype=torch.bool)
    while not torch.equal(keep, previous):
        keep, previous = ~(covers & keep[:, None]).any(dim=0), keep
    return order[keep]


def _select(kept: Tensor, scores: Tensor, image: Tensor, max_output: int | None) -> Tensor:
    """Return kept rows in descending order of score, the best ``max_output`` of each image."""
    kept = kept.sort().values
    kept = kept[scores.detach()[kept].argsort(descending=True, stable=True)]
    if max_output is None:
        return kept
    return kept[Segments.from_index(image[kept], int(image.max()) + 1 if len(image) else 0).rank() < max_output]


def _in_order(scores: Tensor, group: Tensor) -> Tensor:
    """Return rows group after group, in each the best first."""
    order = scores.detach().argsort(descending=True, stable=True)
    return order[group[order].argsort(stable=True)]


def _groups(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    labels: Tensor | None,
    batch_index: Tensor | None,
    max_output: int | None,
) -> tuple[Tensor, Tensor]:
    """Return image and group (image and label) of each box, ``[N]`` int64 each, numbered from 0."""
    _check(boxes=boxes)
    check_finite("boxes", boxes)
    check_tensor("scores", scores, (len(boxes),), FLOATS)
    check_finite("scores", scores)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected an IoU in [0, 1], got {threshold}")
    if max_output is not None:
        check_count("max_output", max_output, 0)
    check_same_device(boxes=boxes, scores=scores, labels=labels, batch_index=batch_index)
    numbers = torch.zeros(2, len(boxes), dtype=torch.int64, device=boxes.device)
    for row, (name, number) in enumerate((("batch_index", batch_index), ("labels", labels))):
        if number is not None:
            check_tensor(name, number, (len(boxes),), (torch.int64,))
            numbers[row] = torch.unique(number, return_inverse=True)[1]
    image, label = numbers
    num_labels = int(label.max()) + 1 if len(label) else 1
    return image, torch.unique(image * num_labels + label, return_inverse=True)[1]


def _common_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return areas ``[...]`` of boxes ``[..., 4]``; leading dimensions broadcast."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    common = sides.prod(dim=-1)
    return common, (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - common


def _giou(a: Tensor, b: Tensor) -> Tensor:
    common, union = _common_and_union(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(dim=-1)
    return common / union.where(union > 0, 1) - (hull - union) / hull.where(hull > 0, 1)


def _check(**boxes: Tensor) -> None:
    for name, each in boxes.items():
        check_tensor(name, each, (None, 4), FLOATS)
    check_same_device(**boxes)
