"""Oriented boxes: IoU from above and in 3D, suppression, points in boxes.

    box = [x, y, z, l, w, h, yaw, ...]      gravity centre, metres, yaw in radians counter-clockwise from +x
    IoU = common / (volume_a + volume_b - common),    common = (common area from above) * (common height)

The common area is taken in the frame of box a, so that boxes far from the origin lose no digits. There a is
``|x| <= l/2, |y| <= w/2``, and with ``X = clamp(x, -l/2, l/2)``, ``Y = clamp(y, -w/2, w/2)`` Green's theorem gives

    common area = ∮ X dY   along the outline of b,

because dX and dY vanish outside of a. Along an edge of b, X and Y are linear between the points where the edge meets
the four lines that bound a, so the trapezoid rule is exact between these points. The integral depends continuously on
the corners: identical, touching and degenerate boxes need no special case. That is the reference; the CPU kernel clips
polygons instead. Both compute in float64 whatever the dtype of the boxes.

Two boxes without volume have IoU 0. No operation here has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ._checks import FLOATS, check_columns, check_count, check_finite, check_same_device, check_tensor, describe
from ._numba import boxes as kernels
from ._numba import threads
from .segment import Segments

CHUNK = 1 << 16  # pairs the reference holds at once, about 100 MB
STEPS_A_PAIR = 16  # elementary steps of a pair that the circle test decides, as most are


def iou_bev(
    a: Tensor,  # [N, 5 | 7+]
    b: Tensor,  # [M, 5 | 7+]
) -> Tensor:
    """Return the IoU of rectangles seen from above, every pair.

    Args:
        a: ``[N, 5]`` ``(x, y, l, w, yaw)`` or ``[N, >= 7]`` boxes; metres, radians.
        b: ``[M, 5]`` or ``[M, >= 7]``, likewise.

    Returns:
        ``[N, M]`` in [0, 1], of the wider dtype of the two.

    Raises:
        ValueError: if a shape is another one, a number is NaN or infinite, or a size is negative.
    """
    return _iou_matrix(_from_above("a", a), _from_above("b", b), torch.promote_types(a.dtype, b.dtype))


def iou_bev_reference(a: Tensor, b: Tensor) -> Tensor:
    """``iou_bev`` in plain torch."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return _iou_matrix_reference(_from_above("a", a), _from_above("b", b)).to(dtype)


def iou_3d(
    a: Tensor,  # [N, 7+]
    b: Tensor,  # [M, 7+]
) -> Tensor:
    """Return the 3D IoU of upright boxes, every pair.

    Args:
        a: ``[N, >= 7]`` boxes ``(x, y, z, l, w, h, yaw, ...)``; metres, radians.
        b: ``[M, >= 7]``, likewise.

    Returns:
        ``[N, M]`` in [0, 1], of the wider dtype of the two.

    Raises:
        ValueError: if a shape is another one, a number is NaN or infinite, or a size is negative.
    """
    return _iou_matrix(_upright("a", a), _upright("b", b), torch.promote_types(a.dtype, b.dtype))


def iou_3d_reference(a: Tensor, b: Tensor) -> Tensor:
    """``iou_3d`` in plain torch."""
    return _iou_matrix_reference(_upright("a", a), _upright("b", b)).to(torch.promote_types(a.dtype, b.dtype))


def iou_3d_paired(
    a: Tensor,  # [N, 7+]
    b: Tensor,  # [N, 7+]
) -> Tensor:
    """Return the 3D IoU ``[N]`` of equal rows; arguments as ``iou_3d``, of equal length."""
    first, second = _upright("a", a), _upright("b", b)
    _check_equal_rows(a, b)
    if first.device.type != "cpu":
        return iou_3d_paired_reference(a, b)
    out = first.new_empty(len(first))
    bounds = threads.even(len(first), len(first) * STEPS_A_PAIR)
    threads.run(kernels.iou_pairs, bounds, _with_reach(first), _with_reach(second), out.numpy())
    return out.to(torch.promote_types(a.dtype, b.dtype))


def iou_3d_paired_reference(a: Tensor, b: Tensor) -> Tensor:
    """``iou_3d_paired`` in plain torch."""
    first, second = _upright("a", a), _upright("b", b)
    _check_equal_rows(a, b)
    return _iou(first, second).to(torch.promote_types(a.dtype, b.dtype))


def nms_bev(
    boxes: Tensor,  # [N, 7+]
    scores: Tensor,  # [N]
    threshold: float,
    *,
    labels: Tensor | None = None,  # [N]
    batch_index: Tensor | None = None,  # [N]
    max_output: int | None = None,
) -> Tensor:
    """Suppress boxes that a better box covers, seen from above.

    In descending order of score (the lower row first among equals) a box is kept unless a kept box of the same label
    and sample overlaps it with a BEV IoU above the threshold.

    Args:
        boxes: ``[N, >= 7]`` ``(x, y, z, l, w, h, yaw, ...)``; metres, radians.
        scores: ``[N]`` floating point.
        threshold: BEV IoU in [0, 1] above which the worse box goes.
        labels: ``[N]`` int64; None lets all boxes suppress each other.
        batch_index: ``[N]`` int64, sample of each box; None means one sample.
        max_output: boxes kept at most in each sample.

    Returns:
        Kept rows int64 in descending order of score.

    Raises:
        ValueError: if a shape or dtype is another one, a number is NaN or infinite, a size is negative, or the
            threshold or ``max_output`` is impossible.
    """
    flat, order, groups = _prepare_nms(boxes, scores, threshold, labels, batch_index, max_output)
    if flat.device.type != "cpu":
        return nms_bev_reference(
            boxes, scores, threshold, labels=labels, batch_index=batch_index, max_output=max_output
        )
    limit = len(boxes) if max_output is None else max_output
    label, sample = groups.numpy()
    return order[torch.from_numpy(kernels.nms(_with_reach(flat), label, sample, threshold, limit))]


def nms_bev_reference(
    boxes: Tensor,  # [N, 7+]
    scores: Tensor,  # [N]
    threshold: float,
    *,
    labels: Tensor | None = None,  # [N]
    batch_index: Tensor | None = None,  # [N]
    max_output: int | None = None,
) -> Tensor:
    """``nms_bev`` in plain torch."""
    flat, order, groups = _prepare_nms(boxes, scores, threshold, labels, batch_index, max_output)
    related = (groups[:, :, None] == groups[:, None, :]).all(dim=0)
    keep = settle((_iou_matrix_reference(flat, flat) > threshold) & related)
    if max_output is not None:
        sample = groups[1][keep]
        within = Segments.from_index(sample, len(boxes)).rank() < max_output
        return order[keep][within]
    return order[keep]


def settle(covers: Tensor) -> Tensor:
    """Return which of N ranked boxes are kept: the one solution of "kept unless a kept better one covers it".

    Each pass settles at least one more box in order of rank, so the iteration ends, usually after a few passes.

    Args:
        covers: ``[N, N]`` bool, whether a box (row) covers another (column), in descending order of score.

    Returns:
        ``[N]`` bool.
    """
    covers = covers.triu(diagonal=1)
    keep, previous = ~covers.any(dim=0), torch.ones(len(covers), dtype=torch.bool, device=covers.device)
    while not torch.equal(keep, previous):
        keep, previous = ~(covers & keep[:, None]).any(dim=0), keep
    return keep


def points_in_boxes(
    points: Tensor,  # [P, 3]
    boxes: Tensor,  # [N, 7+]
) -> Tensor:
    """Return for each point the first box that contains it.

    Args:
        points: ``[P, 3]`` floating point, metres.
        boxes: ``[N, >= 7]`` ``(x, y, z, l, w, h, yaw, ...)``; a point on a face is inside, as in the nuScenes devkit.

    Returns:
        ``[P]`` int64: a row of ``boxes``, or -1.

    Raises:
        ValueError: if a shape is another one, a number is NaN or infinite, or a size is negative.
    """
    if points.device.type != "cpu":
        return points_in_boxes_reference(points, boxes)
    out = torch.empty(len(points), dtype=torch.int64)
    _run_points(kernels.first_box, points, boxes, out)
    return out


def points_in_boxes_reference(points: Tensor, boxes: Tensor) -> Tensor:
    """``points_in_boxes`` in plain torch."""
    inside = points_in_boxes_mask_reference(points, boxes)
    if len(boxes) == 0:
        return torch.full((len(points),), -1, device=points.device)
    return torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)


def points_in_boxes_mask(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the mask ``[P, N]`` of points inside boxes; arguments as ``points_in_boxes``."""
    if points.device.type != "cpu":
        return points_in_boxes_mask_reference(points, boxes)
    out = torch.empty(len(points), len(boxes), dtype=torch.bool)
    _run_points(kernels.inside_mask, points, boxes, out)
    return out


def points_in_boxes_mask_reference(points: Tensor, boxes: Tensor) -> Tensor:
    """``points_in_boxes_mask`` in plain torch: the definition."""
    _check_points(points, boxes)
    upright = _upright("boxes", boxes)
    x, y, z = (points.double()[:, None] - upright[:, :3]).unbind(-1)
    cos, sin = upright[:, 6].cos(), upright[:, 6].sin()
    local = torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1)
    return (local.abs() <= upright[:, 3:6] / 2).all(dim=-1)


def count_points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the number of points ``[N]`` int64 inside each box; arguments as ``points_in_boxes``."""
    if points.device.type != "cpu":
        return count_points_in_boxes_reference(points, boxes)
    out = torch.empty(len(boxes), dtype=torch.int64)
    _run_points(kernels.count_inside, points, boxes, out)
    return out


def count_points_in_boxes_reference(points: Tensor, boxes: Tensor) -> Tensor:
    """``count_points_in_boxes`` in plain torch."""
    return points_in_boxes_mask_reference(points, boxes).sum(dim=0)


def _run_points(kernel: Callable[..., None], points: Tensor, boxes: Tensor, out: Tensor) -> None:
    _check_points(points, boxes)
    upright = _upright("boxes", boxes)
    turned = torch.cat([upright[:, :6], upright[:, 6:].cos(), upright[:, 6:].sin()], dim=1)
    array = (points.detach() if points.dtype == torch.float64 else points.detach().float()).contiguous().numpy()
    bounds = threads.even(len(out), len(points) * len(boxes))
    threads.run(kernel, bounds, array, turned.numpy(), out.numpy())


def _iou_matrix(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    check_same_device(a=a, b=b)
    if a.device.type != "cpu":
        return _iou_matrix_reference(a, b).to(dtype)
    out = a.new_empty(len(a), len(b))
    bounds = threads.even(len(a), out.numel() * STEPS_A_PAIR)
    threads.run(kernels.iou_matrix, bounds, _with_reach(a), _with_reach(b), out.numpy())
    return out.to(dtype)


def _reach(boxes: Tensor) -> Tensor:
    """Return half the diagonal seen from above ``[N]``: boxes farther apart than their reaches do not meet."""
    return torch.hypot(boxes[:, 3], boxes[:, 4]) / 2


def _with_reach(boxes: Tensor) -> np.ndarray:
    return torch.cat([boxes, _reach(boxes)[:, None]], dim=1).numpy()


def _iou_matrix_reference(a: Tensor, b: Tensor) -> Tensor:
    """Compute the pairs near enough to meet; of the others the IoU is 0."""
    first, second = _reach(a), _reach(b)
    distance = torch.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1])
    rows, columns = (distance <= first[:, None] + second).nonzero(as_tuple=True)
    out = torch.zeros_like(distance)
    for i, j in zip(rows.split(CHUNK), columns.split(CHUNK), strict=True):
        out[i, j] = _iou(a[i], b[j])
    return out


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU ``[...]`` of upright boxes ``[..., 7]`` in float64; leading dimensions broadcast."""
    gap = (b[..., 2] - a[..., 2]).abs()
    height = torch.minimum(torch.minimum(a[..., 5], b[..., 5]), (a[..., 5] + b[..., 5]) / 2 - gap).clamp(min=0)
    common = _common_area(a, b) * height
    union = a[..., 3:6].prod(dim=-1) + b[..., 3:6].prod(dim=-1) - common
    return torch.where(union > 0, common / union, 0).clamp(0, 1)


def _common_area(a: Tensor, b: Tensor) -> Tensor:
    """Return ``∮ X dY`` along the outline of b in the frame of a; see the top of the file."""
    half = a[..., None, None, 3:5] / 2
    start = _outline(a, b)[..., None, :]  # [..., 4, 1, 2]
    step = start.roll(-1, dims=-3) - start
    crossings = (torch.cat([-half, half], dim=-2) - start) / step.where(step != 0, torch.inf)
    ends = torch.zeros_like(crossings[..., :1, :])
    breaks = torch.cat([ends, crossings, ends + 1], dim=-2).clamp(0, 1).flatten(-2).sort(dim=-1).values[..., None]
    x, y = (start + breaks * step).clamp(min=-half, max=half).unbind(dim=-1)
    return ((x[..., 1:] + x[..., :-1]) / 2 * y.diff(dim=-1)).sum(dim=(-1, -2))


def _outline(a: Tensor, b: Tensor) -> Tensor:
    """Return the corners of b in the frame of a ``[..., 4, 2]``, counter-clockwise."""
    dx, dy = (b[..., :2] - a[..., :2]).unbind(dim=-1)
    cos, sin = a[..., 6].cos(), a[..., 6].sin()
    centre = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], dim=-1)
    signs = b.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    u, v = (signs * b[..., None, 3:5] / 2).unbind(dim=-1)
    turn = (b[..., 6] - a[..., 6])[..., None]
    corners = torch.stack([turn.cos() * u - turn.sin() * v, turn.sin() * u + turn.cos() * v], dim=-1)
    return centre[..., None, :] + corners


def _prepare_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    labels: Tensor | None,
    batch_index: Tensor | None,
    max_output: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return flat boxes and groups ``[2, N]`` (label, sample) in descending order of score, and that order."""
    flat = _from_above("boxes", boxes)
    check_tensor("scores", scores, (len(boxes),), FLOATS)
    check_finite("scores", scores)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected an IoU in [0, 1], got {threshold}")
    if max_output is not None:
        check_count("max_output", max_output, 0)
    check_same_device(boxes=boxes, scores=scores, labels=labels, batch_index=batch_index)
    order = scores.detach().argsort(descending=True, stable=True)
    groups = torch.zeros(2, len(boxes), dtype=torch.int64, device=boxes.device)
    for row, (name, group) in enumerate((("labels", labels), ("batch_index", batch_index))):
        if group is not None:
            check_tensor(name, group, (len(boxes),), (torch.int64,))
            groups[row] = torch.unique(group, return_inverse=True)[1]
    return flat[order], order, groups[:, order]


def _from_above(name: str, boxes: Tensor) -> Tensor:
    """Return boxes ``[N, 7]`` float64 of height 1 at z = 0, whose 3D IoU is the BEV IoU."""
    if boxes.ndim == 2 and boxes.shape[1] == 5:
        x, y, length, width, yaw = boxes.detach().double().unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return _upright(name, torch.stack([x, y, zero, length, width, one, yaw], dim=1))
    if boxes.ndim != 2 or boxes.shape[1] < 7:
        raise ValueError(f"{name}: expected [N, 5] or [N, 7 or more] floating point, got {describe(boxes)}")
    flat = _upright(name, boxes).clone()
    flat[:, 2], flat[:, 5] = 0, 1
    return flat


def _upright(name: str, boxes: Tensor) -> Tensor:
    """Return the checked boxes ``[N, 7]`` in contiguous float64 without a graph."""
    check_columns(name, boxes, 7)
    upright = boxes.detach()[:, :7].double().contiguous()
    check_finite(f"{name}[:, :7]", upright)
    if bool((upright[:, 3:6] < 0).any()):
        raise ValueError(f"{name}: sizes (columns 3 to 5) must not be negative, got {float(upright[:, 3:6].min())}")
    return upright


def _check_equal_rows(a: Tensor, b: Tensor) -> None:
    check_same_device(a=a, b=b)
    if len(a) != len(b):
        raise ValueError(f"b: expected as many boxes as a, {len(a)}, got {len(b)}")


def _check_points(points: Tensor, boxes: Tensor) -> None:
    check_tensor("points", points, (None, 3), FLOATS)
    check_finite("points", points)
    check_same_device(points=points, boxes=boxes)
