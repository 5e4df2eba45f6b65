"""Oriented boxes: geometry against shapely and against laws of geometry, suppression against a literal loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import (
    boxes as ops,
)
from sparse3d_ops import (
    count_points_in_boxes,
    iou_3d,
    iou_3d_paired,
    iou_bev,
    nms_bev,
    points_in_boxes,
    points_in_boxes_mask,
)

PROPERTY = settings(deadline=None, max_examples=40, derandomize=True)
FAST_AND_REFERENCE = pytest.mark.parametrize("iou", [iou_3d, ops.iou_3d_reference])
BEV_FAST_AND_REFERENCE = pytest.mark.parametrize("iou", [iou_bev, ops.iou_bev_reference])
NMS = pytest.mark.parametrize("nms", [nms_bev, ops.nms_bev_reference])

# Numbers on a coarse grid make touching edges, equal boxes and right angles likely.
coarse = st.integers(-8, 8).map(lambda n: n / 2)
size = st.integers(0, 8).map(lambda n: n / 2)
angle = st.one_of(st.integers(-4, 8).map(lambda n: n * math.pi / 4), st.floats(-7, 7))
box = st.tuples(coarse, coarse, coarse, size, size, size, angle)
some_boxes = st.lists(box, min_size=1, max_size=6).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


def random_boxes(count: int, seed: int, spread: float = 12.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([-spread / 2, -spread / 2, -1, 0.2, 0.2, 0.2, -4.0], dtype=torch.float64)
    high = torch.tensor([spread / 2, spread / 2, 1, 5.0, 2.5, 2.0, 4.0], dtype=torch.float64)
    return low + (high - low) * torch.rand(count, 7, generator=generator, dtype=torch.float64)


def move(boxes: Tensor, turn: float, offset: tuple[float, float, float]) -> Tensor:
    """The boxes after the world is turned about z and moved."""
    moved = boxes.clone()
    moved[:, 0] = math.cos(turn) * boxes[:, 0] - math.sin(turn) * boxes[:, 1] + offset[0]
    moved[:, 1] = math.sin(turn) * boxes[:, 0] + math.cos(turn) * boxes[:, 1] + offset[1]
    moved[:, 2] += offset[2]
    moved[:, 6] += turn
    return moved


def shapely_iou(a: Tensor, b: Tensor) -> Tensor:
    geometry = pytest.importorskip("shapely.geometry")
    affinity = pytest.importorskip("shapely.affinity")

    def polygon(row: list[float]):
        x, y, length, width, yaw = row[0], row[1], row[3], row[4], row[6]
        flat = geometry.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
        return affinity.rotate(flat, yaw, origin=(x, y), use_radians=True)

    out = torch.zeros(len(a), len(b), dtype=torch.float64)
    for i, first in enumerate(a.tolist()):
        for j, second in enumerate(b.tolist()):
            union = first[3] * first[4] + second[3] * second[4]
            common = polygon(first).intersection(polygon(second)).area
            out[i, j] = common / (union - common) if union > 0 else 0
    return out


@BEV_FAST_AND_REFERENCE
@PROPERTY
@given(a=some_boxes, b=some_boxes)
def test_bev_iou_agrees_with_shapely(iou, a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(iou(a, b), shapely_iou(a, b), rtol=0, atol=1e-6)


@PROPERTY
@given(a=some_boxes, b=some_boxes)
def test_two_algorithms_give_one_iou(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(iou_3d(a, b), ops.iou_3d_reference(a, b), rtol=0, atol=1e-12)
    torch.testing.assert_close(iou_bev(a, b), ops.iou_bev_reference(a, b), rtol=0, atol=1e-12)


@FAST_AND_REFERENCE
@PROPERTY
@given(a=some_boxes, b=some_boxes, turn=st.floats(-4, 4), x=st.floats(-1e4, 1e4))
def test_laws_of_iou(iou, a: Tensor, b: Tensor, turn: float, x: float) -> None:
    value = iou(a, b)
    assert (value >= 0).all()
    assert (value <= 1).all()
    torch.testing.assert_close(iou(b, a).T, value, rtol=0, atol=1e-12)
    identity = (a[:, 3:6].prod(dim=1) > 0).double()
    torch.testing.assert_close(iou(a, a).diagonal(), identity, rtol=0, atol=1e-12)
    offset = (x, -2 * x, x / 100)
    torch.testing.assert_close(iou(move(a, turn, offset), move(b, turn, offset)), value, rtol=0, atol=1e-8)


@FAST_AND_REFERENCE
def test_iou_3d_is_the_common_volume(iou) -> None:
    a = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]])
    b = torch.tensor(
        [
            [0.0, 0, 0, 4, 2, 2, math.pi],  # turned half around: the same box
            [0, 0, 0, 2, 4, 2, math.pi / 2],  # the same box in other words
            [0, 0, 0, 4, 2, 2, math.pi / 2],  # common 2 x 2 x 2
            [2, 0, 0, 4, 2, 2, 0],  # half of it
            [0, 0, 1, 4, 2, 2, 0],  # half as high
            [0, 0, 0, 1, 1, 1, 0.3],  # inside
            [4, 0, 0, 4, 2, 2, 0],  # touching faces
            [0, 0, 2, 4, 2, 2, 0],  # standing on it
            [0, 0, 0, 0, 2, 2, 0],  # without volume
        ]
    )
    expected = [1, 1, 8 / 24, 8 / 24, 8 / 24, 1 / 16, 0, 0, 0]
    torch.testing.assert_close(iou(a, b)[0], torch.tensor(expected), rtol=0, atol=1e-6)


@FAST_AND_REFERENCE
def test_small_boxes_far_from_the_origin_lose_nothing(iou) -> None:
    """float32 boxes of 8 cm at 64 km: neighbouring coordinates there are 1/256 m apart and exactly representable."""
    near = torch.tensor([[0.0, 0, 0, 0.0625, 0.0625, 1, 0], [0.03125, 0, 0, 0.0625, 0.0625, 1, 0]])
    far = near.clone()
    far[:, :2] += 65536
    assert torch.equal(iou(far, far), iou(near, near))
    torch.testing.assert_close(iou(near, near)[0, 1], torch.tensor(1 / 3))


def test_common_area_of_thin_boxes_that_cross() -> None:
    a = torch.tensor([[0.0, 0, 0, 100, 1e-6, 1, 0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0, 0, 100, 1e-6, 1, math.pi / 2]], dtype=torch.float64)
    for iou in (iou_3d, ops.iou_3d_reference):
        torch.testing.assert_close(iou(a, b), torch.tensor([[1e-12 / 2e-4]], dtype=torch.float64), rtol=1e-6, atol=0)


def test_rectangles_of_five_columns_and_wider_boxes() -> None:
    a, b = random_boxes(5, 0), random_boxes(6, 1)
    flat = [0, 1, 3, 4, 6]
    assert torch.equal(iou_bev(a[:, flat], b), iou_bev(a, b))
    wide = torch.cat([a, torch.full((5, 2), math.nan)], dim=1)  # an unknown velocity is no error
    assert torch.equal(iou_bev(wide, b), iou_bev(a, b))
    assert torch.equal(iou_3d(wide, b), iou_3d(a, b))


def test_paired_iou_is_the_diagonal() -> None:
    a, b = random_boxes(40, 0, 3.0), random_boxes(40, 1, 3.0)
    assert torch.equal(iou_3d_paired(a, b), iou_3d(a, b).diagonal())
    torch.testing.assert_close(ops.iou_3d_paired_reference(a, b), iou_3d_paired(a, b), rtol=0, atol=1e-12)
    assert (iou_3d_paired(a, b) > 0).any()
    with pytest.raises(ValueError, match="b: expected as many boxes as a, 40, got 39"):
        iou_3d_paired(a, b[:39])


@pytest.mark.parametrize("iou", [iou_3d, ops.iou_3d_reference, iou_bev, ops.iou_bev_reference])
def test_iou_of_nothing_dtypes_and_graph(iou) -> None:
    a = random_boxes(3, 0).float().requires_grad_()
    for n, m in ((0, 3), (3, 0), (0, 0)):
        assert iou(a[:n], a[:m]).shape == (n, m)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        out = iou(a.to(dtype), a.to(dtype))
        assert out.dtype == dtype
        assert not out.requires_grad
        torch.testing.assert_close(out.diagonal().float(), torch.ones(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("iou", [iou_3d, ops.iou_3d_reference, iou_bev, ops.iou_bev_reference])
def test_iou_refusals(iou) -> None:
    a = random_boxes(3, 0)
    with pytest.raises(ValueError, match="b: expected"):
        iou(a, a[:, :6])
    for column, value in ((1, math.nan), (6, math.inf)):
        bad = a.clone()
        bad[1, column] = value
        with pytest.raises(ValueError, match=r"a\[:, :7\]: 1 of 3 rows hold NaN or infinity"):
            iou(bad, a)
    negative = a.clone()
    negative[2, 4] = -1
    with pytest.raises(ValueError, match=r"b: sizes .* must not be negative, got -1"):
        iou(a, negative)


def literal_nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor, sample: Tensor, limit: int) -> list:
    overlap = ops.iou_bev_reference(boxes, boxes)
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda r: (-float(scores[r]), r)):
        free = all(overlap[k, row] <= threshold or groups[k] != groups[row] for k in kept)
        if free and sum(int(sample[k] == sample[row]) for k in kept) < limit:
            kept.append(row)
    return kept


@NMS
@PROPERTY
@given(seed=st.integers(0, 1000), count=st.integers(0, 40), limit=st.sampled_from([None, 0, 1, 3]))
def test_suppression_equals_the_literal_loop(nms, seed: int, count: int, limit: int | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(count, seed, 5.0)
    scores = torch.randint(0, 6, (count,), generator=generator) / 5  # ties
    labels = torch.randint(-1, 2, (count,), generator=generator)
    sample = torch.randint(0, 2, (count,), generator=generator) * 7
    most = count if limit is None else limit
    zero = torch.zeros_like(labels)
    for keywords, groups, samples in (
        ({}, zero, zero),
        ({"labels": labels}, labels, zero),
        ({"labels": labels, "batch_index": sample}, labels * 10 + sample, sample),
    ):
        kept = nms(boxes, scores, 0.1, max_output=limit, **keywords)
        assert kept.dtype == torch.int64
        assert kept.tolist() == literal_nms(boxes, scores, 0.1, groups, samples, most)


@NMS
def test_suppression_is_strict_and_prefers_the_lower_row(nms) -> None:
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 1, 0], [0, 0, 9, 2, 2, 1, 0], [1, 0, 0, 2, 2, 1, 0]])
    scores = torch.tensor([0.5, 0.5, 0.9])
    assert nms(boxes, scores, 1 / 3 + 1e-9).tolist() == [2, 0]
    assert nms(boxes, scores, 0.3).tolist() == [2]
    assert nms(boxes, scores, 1.0).tolist() == [2, 0, 1]


@NMS
def test_suppression_refusals(nms) -> None:
    boxes, scores = random_boxes(4, 0), torch.rand(4)
    with pytest.raises(ValueError, match=r"scores: expected \[4\]"):
        nms(boxes, scores[:3], 0.1)
    with pytest.raises(ValueError, match="scores: 1 of 4 rows hold NaN"):
        nms(boxes, torch.tensor([0, 1, math.nan, 0]), 0.1)
    with pytest.raises(ValueError, match=r"labels: expected \[4\] int64"):
        nms(boxes, scores, 0.1, labels=torch.zeros(4))
    with pytest.raises(ValueError, match=r"threshold: expected an IoU in \[0, 1\], got -0.1"):
        nms(boxes, scores, -0.1)
    with pytest.raises(ValueError, match="max_output: must be at least 0"):
        nms(boxes, scores, 0.1, max_output=-1)


POINTS = [
    (points_in_boxes, ops.points_in_boxes_reference),
    (points_in_boxes_mask, ops.points_in_boxes_mask_reference),
    (count_points_in_boxes, ops.count_points_in_boxes_reference),
]
EACH_POINTS = pytest.mark.parametrize(("fast", "reference"), POINTS, ids=["first", "mask", "count"])


@EACH_POINTS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_points_in_boxes_equal_the_reference(fast, reference, dtype: torch.dtype) -> None:
    boxes = random_boxes(30, 3).to(dtype)
    points = (torch.rand(2000, 3, dtype=torch.float64) * 12 - 6).to(dtype)
    got = fast(points, boxes)
    assert torch.equal(got, reference(points, boxes))
    assert torch.equal(fast(points.repeat_interleave(2, dim=1)[:, ::2], boxes), got)
    assert got.any()


@EACH_POINTS
def test_points_in_boxes_of_nothing(fast, reference) -> None:
    for points, boxes in ((0, 3), (4, 0), (0, 0)):
        tensors = torch.rand(points, 3), random_boxes(boxes, 0)
        assert torch.equal(fast(*tensors), reference(*tensors))


def test_faces_belong_to_the_box_and_the_first_box_wins() -> None:
    boxes = torch.tensor([[10.0, 0, 0, 4, 2, 2, 0], [10, 0, 0, 8, 8, 8, 0]])
    points = torch.tensor([[12.0, 1, 1], [12.001, 1, 1], [10, 0, -4], [10, 0, -4.001], [14, 4, 4]], dtype=torch.float64)
    assert points_in_boxes(points, boxes).tolist() == [0, 1, 1, -1, 1]
    assert points_in_boxes_mask(points, boxes).tolist() == [
        [True, True],
        [False, True],
        [False, True],
        [False, False],
        [False, True],
    ]
    assert count_points_in_boxes(points, boxes).tolist() == [1, 4]


@PROPERTY
@given(boxes=some_boxes, turn=st.floats(-4, 4), seed=st.integers(0, 99))
def test_points_move_with_the_world(boxes: Tensor, turn: float, seed: int) -> None:
    """Points drawn inside and outside of each box in its own frame keep their side after any movement."""
    boxes = boxes.clone()
    boxes[:, 3:6] += 0.5
    generator = torch.Generator().manual_seed(seed)
    local = torch.rand(20, 3, generator=generator, dtype=torch.float64) - 0.5
    local = torch.where(local.abs().amax(dim=1, keepdim=True) > 0.45, local.sign() * 0.6, local)
    outside = (local.abs() > 0.5).any(dim=1)
    for row in move(boxes, turn, (100.0, -50.0, 3.0)):
        scaled = local * row[3:6]
        cos, sin = row[6].cos(), row[6].sin()
        x, y = cos * scaled[:, 0] - sin * scaled[:, 1], sin * scaled[:, 0] + cos * scaled[:, 1]
        points = torch.stack([x, y, scaled[:, 2]], dim=1) + row[:3]
        assert torch.equal(points_in_boxes_mask(points, row[None])[:, 0], ~outside)


@EACH_POINTS
def test_points_refusals(fast, reference) -> None:
    for function in (fast, reference):
        with pytest.raises(ValueError, match=r"points: expected \[\*, 3\]"):
            function(torch.zeros(2, 4), random_boxes(2, 0))
        with pytest.raises(ValueError, match="points: 1 of 2 rows hold NaN"):
            function(torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]), random_boxes(2, 0))
        with pytest.raises(ValueError, match="boxes: expected"):
            function(torch.zeros(2, 3), random_boxes(2, 0)[:, :6])


def test_threads_change_no_bit() -> None:
    a, b, points = random_boxes(300, 0), random_boxes(200, 1), torch.rand(20_000, 3) * 12 - 6
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((iou_3d(a, b), *(function(points, b) for function, _ in POINTS)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
