"""Segment reductions against plain torch, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch

from sparse3d_ops import Segments, segment_gather, segment_max, segment_mean, segment_sum
from sparse3d_ops import segment as ops

PAIRS = [
    (segment_sum, ops.segment_sum_reference),
    (segment_mean, ops.segment_mean_reference),
    (segment_max, ops.segment_max_reference),
    (segment_gather, ops.segment_gather_reference),
]
NAMES = ["sum", "mean", "max", "gather"]
EACH = pytest.mark.parametrize(("fast", "reference"), PAIRS, ids=NAMES)


def grouping(rows: int, segments: int, seed: int = 0) -> Segments:
    """Rows in random segments; the first and the last segment are empty."""
    generator = torch.Generator().manual_seed(seed)
    return Segments.from_index(torch.randint(1, max(2, segments - 1), (rows,), generator=generator), segments)


def inputs(fast, segments: Segments, channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    rows = segments.num_segments if fast is segment_gather else len(segments.index)
    return torch.randn(rows, channels, generator=torch.Generator().manual_seed(1)).to(dtype)


def with_gradient(function, values: torch.Tensor, segments: Segments) -> tuple[torch.Tensor, torch.Tensor]:
    values = values.clone().requires_grad_()
    out = function(values, segments)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    (gradient,) = torch.autograd.grad((out * weight).sum(), values)
    return out.detach(), gradient


def test_grouping_equals_a_stable_sort() -> None:
    fast = grouping(5000, 37)
    slow = Segments.from_index_reference(fast.index, 37)
    assert torch.equal(fast.order, slow.order)
    assert torch.equal(fast.offsets, slow.offsets)
    assert torch.equal(fast.counts, torch.bincount(fast.index, minlength=37))
    seen = [0] * 37
    for row, segment in enumerate(fast.index.tolist()):
        assert fast.rank()[row] == seen[segment] if row < 50 else True
        seen[segment] += 1


def test_definitions_by_hand() -> None:
    segments = Segments.from_index(torch.tensor([2, 0, 2, 2]), 4)
    values = torch.tensor([[1.0, -5], [7, -8], [3, -9], [2, -1]])
    assert segment_sum(values, segments).tolist() == [[7, -8], [0, 0], [6, -15], [0, 0]]
    assert segment_mean(values, segments).tolist() == [[7, -8], [0, 0], [2, -5], [0, 0]]
    assert segment_max(values, segments).tolist() == [[7, -8], [0, 0], [3, -1], [0, 0]]
    assert segment_gather(values, segments).tolist() == [[3, -9], [1, -5], [3, -9], [3, -9]]


@EACH
@pytest.mark.parametrize("rows", [0, 1, 7, 4000])
@pytest.mark.parametrize("channels", [1, 5, 32])
def test_equals_the_reference(fast, reference, rows: int, channels: int) -> None:
    segments = grouping(rows, 300)
    values = inputs(fast, segments, channels)
    for got, expected in zip(*(with_gradient(f, values, segments) for f in (fast, reference)), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected)


@EACH
def test_no_segments(fast, reference) -> None:
    segments = Segments.from_index(torch.zeros(0, dtype=torch.int64), 0)
    for function in (fast, reference):
        out, gradient = with_gradient(function, torch.zeros(0, 3), segments)
        assert out.shape == (0, 3)
        assert gradient.shape == (0, 3)


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(fast, reference, dtype: torch.dtype) -> None:
    """4096 ones sum to 2048 (fp16) or 256 (bf16) when added in half precision."""
    segments = Segments.from_index(torch.zeros(4096, dtype=torch.int64), 1)
    ones = torch.ones(1 if fast is segment_gather else 4096, 2, dtype=dtype, requires_grad=True)
    for function in (fast, reference):
        out = function(ones, segments)
        (gradient,) = torch.autograd.grad(out, ones, torch.ones_like(out))
        assert out.dtype == gradient.dtype == dtype
        assert gradient.sum() == {segment_sum: 8192, segment_mean: 2, segment_max: 2, segment_gather: 8192}[fast]
        assert (out == (4096 if fast is segment_sum else 1)).all()


@EACH
def test_float64_gradients(fast, reference) -> None:
    segments = grouping(20, 7)
    values = inputs(fast, segments, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: fast(v, segments), values)
    assert torch.autograd.gradcheck(lambda v: reference(v, segments), values)
    if fast is not segment_max:
        assert torch.autograd.gradgradcheck(lambda v: fast(v, segments), values)


@pytest.mark.parametrize("function", [segment_max, ops.segment_max_reference])
def test_the_first_of_equal_rows_takes_the_gradient_of_a_maximum(function) -> None:
    segments = Segments.from_index(torch.tensor([0, 1, 0, 0, 1]), 2)
    values = torch.tensor([[0.0], [4], [3], [3], [4]], requires_grad=True)
    (gradient,) = torch.autograd.grad(function(values, segments).sum(), values)
    assert gradient[:, 0].tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("function", [segment_max, ops.segment_max_reference])
def test_infinities_are_values_and_nan_is_not_hidden(function) -> None:
    segments = Segments.from_index(torch.tensor([0, 0, 1, 1, 1]), 2)
    values = torch.tensor([[-math.inf], [-math.inf], [1], [math.nan], [2]], requires_grad=True)
    out = function(values, segments)
    assert out[0, 0] == -math.inf
    assert out[1, 0].isnan()
    (gradient,) = torch.autograd.grad(out, values, torch.ones_like(out))
    assert gradient[:, 0].tolist() == [1, 0, 0, 1, 0]


@EACH
def test_threads_and_strides_change_no_bit(fast, reference) -> None:
    segments = grouping(60_000, 500)
    values = inputs(fast, segments, 8)
    expected = with_gradient(fast, values, segments)
    strided = values.repeat_interleave(2, dim=1)[:, ::2]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for got, want in zip(with_gradient(fast, strided, segments), expected, strict=True):
                assert torch.equal(got, want)
    finally:
        torch.set_num_threads(threads)


def test_a_gradient_that_is_an_expanded_scalar() -> None:
    """``out.sum().backward()`` hands kernels a gradient of strides zero."""
    segments = grouping(50, 9)
    values = torch.randn(50, 4, requires_grad=True)
    for function in (segment_sum, segment_mean, segment_max):
        (gradient,) = torch.autograd.grad(function(values, segments).sum(), values)
        assert gradient.shape == (50, 4)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"index: entries must lie in \[0, 3\), got \[-1, 2\]"):
        Segments.from_index(torch.tensor([2, -1]), 3)
    with pytest.raises(ValueError, match=r"index: entries must lie in \[0, 3\), got \[0, 3\]"):
        Segments.from_index(torch.tensor([0, 3]), 3)
    with pytest.raises(ValueError, match=r"index: expected \[\*\] int64, got \[1\] int32"):
        Segments.from_index(torch.zeros(1, dtype=torch.int32), 3)
    segments = grouping(5, 4)
    for function in (segment_sum, segment_mean, segment_max):
        with pytest.raises(ValueError, match=r"values: expected \[5, \*\]"):
            function(torch.zeros(4, 2), segments)
    with pytest.raises(ValueError, match=r"values: expected \[4, \*\]"):
        segment_gather(torch.zeros(5, 2), segments)
    with pytest.raises(ValueError, match=r"values: .* int64"):
        segment_sum(torch.zeros(5, 2, dtype=torch.int64), segments)
