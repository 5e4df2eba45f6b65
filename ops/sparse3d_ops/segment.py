"""Sums, means and maxima over segments of rows, and the way back: what a dynamic voxel encoder is made of.

    sum[s]  = Σ_{p : index[p] = s} values[p]              mean[s] = sum[s] / count[s]
    max[s]  = max_{p : index[p] = s} values[p]            gather[p] = values[index[p]]

An empty segment has sum, mean and max 0. Gradients: the sum's is the gather and the gather's is the sum; a maximum's
goes to the first (lowest) row that attains it, so ties are not split. NaN propagates.

Rows are grouped once (`Segments`), and every operation on them shares the grouping. On a CPU each segment is reduced
by one thread in ascending row order, so results are the same in every bit at any number of threads. Half precision
accumulates in float32. On other devices sums are torch's `index_add_`, whose order of addition on CUDA is fixed only
under `torch.use_deterministic_algorithms(True)`; maxima and gathers are exact everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import FLOATS, check_count, check_index, check_same_device, check_tensor
from ._numba import segment as kernels
from ._numba import threads
from .segment_tree import SegmentTree

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Segments:
    """Rows grouped by segment; build it with ``Segments.from_index``.

    Args:
        index: ``[P]`` int64, segment of each row.
        order: ``[P]`` int64, rows sorted by segment, ascending within one.
        offsets: ``[S + 1]`` int64; segment ``s`` owns ``order[offsets[s]:offsets[s + 1]]``.
    """

    index: Tensor
    order: Tensor
    offsets: Tensor

    @classmethod
    def from_index(cls, index: Tensor, num_segments: int) -> Segments:
        """Group rows by their segment.

        Args:
            index: ``[P]`` int64 in ``[0, num_segments)``.
            num_segments: number of segments, empty ones included.

        Raises:
            ValueError: if ``index`` is not an int64 vector or an entry lies outside the range (also -1).
        """
        check_count("num_segments", num_segments, 0)
        check_tensor("index", index, (None,), (torch.int64,))
        check_index("index", index, num_segments)
        if index.device.type != "cpu":
            return cls.from_index_reference(index, num_segments)
        order, offsets = kernels.group(index.contiguous().numpy(), num_segments)
        return cls(index, torch.from_numpy(order), torch.from_numpy(offsets))

    @classmethod
    def from_index_reference(cls, index: Tensor, num_segments: int) -> Segments:
        """``from_index`` in plain torch, unchecked."""
        counts = torch.bincount(index, minlength=num_segments)
        return cls(index, index.argsort(stable=True), torch.nn.functional.pad(counts.cumsum(0), (1, 0)))

    @property
    def num_segments(self) -> int:
        """Number of segments S."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Tensor:
        """Rows of each segment ``[S]`` int64."""
        return self.offsets.diff()

    def rank(self) -> Tensor:
        """Return the place ``[P]`` int64 of each row among the rows of its segment, from 0, in row order."""
        rank = torch.empty_like(self.order)
        places = torch.arange(len(self.order), device=self.order.device)
        rank[self.order] = places - self.offsets[self.index[self.order]]
        return rank


def segment_sum(
    values: Tensor,  # [P, C]
    segments: Segments,
) -> Tensor:
    """Return the sum of each segment's rows ``[S, C]``; differentiable any number of times.

    Args:
        values: ``[P, C]`` floating point; half precision accumulates in float32.
        segments: the grouping of the P rows.

    Raises:
        ValueError: if ``values`` is not a floating-point matrix with one row for each entry of the grouping.
    """
    _check_rows(values, len(segments.index), segments)
    if values.device.type != "cpu":
        return segment_sum_reference(values, segments)
    return _Sum.apply(_wide(values), segments).to(values.dtype)


def segment_sum_reference(values: Tensor, segments: Segments) -> Tensor:
    """``segment_sum`` in plain torch."""
    wide = _wide(values)
    return wide.new_zeros(segments.num_segments, values.shape[1]).index_add(0, segments.index, wide).to(values.dtype)


def segment_mean(
    values: Tensor,  # [P, C]
    segments: Segments,
) -> Tensor:
    """Return the mean of each segment's rows ``[S, C]``, 0 for an empty one; arguments as ``segment_sum``."""
    _check_rows(values, len(segments.index), segments)
    return (segment_sum(_wide(values), segments) / segments.counts.clamp(min=1)[:, None]).to(values.dtype)


def segment_mean_reference(values: Tensor, segments: Segments) -> Tensor:
    """``segment_mean`` in plain torch."""
    total = segment_sum_reference(_wide(values), segments)
    return (total / segments.counts.clamp(min=1)[:, None]).to(values.dtype)


def segment_max(
    values: Tensor,  # [P, C]
    segments: Segments | SegmentTree,
) -> Tensor:
    """Return the maximum of each segment's rows ``[S, C]``, 0 for an empty one; arguments as ``segment_sum``.

    The gradient goes to the lowest row that attains the maximum. Differentiable once on a CPU. A ``SegmentTree`` stands
    for segments where only standard operators may be used, as in an exported graph.
    """
    if isinstance(segments, SegmentTree):
        return segments.maximum(values)
    _check_rows(values, len(segments.index), segments)
    if values.device.type != "cpu":
        return segment_max_reference(values, segments)
    return _Max.apply(_wide(values), segments).to(values.dtype)


def segment_max_reference(values: Tensor, segments: Segments) -> Tensor:
    """``segment_max`` in plain torch: find the winning rows, then gather them."""
    if len(values) == 0:
        return segment_sum_reference(values, segments)
    index = segments.index[:, None].expand_as(values)
    shape = (segments.num_segments, values.shape[1])
    known = values.detach()
    top = known.new_full(shape, -torch.inf).scatter_reduce(0, index, known, "amax")
    wins = (known == top[segments.index]) | known.isnan()
    rows = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    none = len(values)
    winners = rows.new_full(shape, none).scatter_reduce(0, index, rows.where(wins, none), "amin")
    return values.gather(0, winners.clamp(max=none - 1)).masked_fill(winners == none, 0)


def segment_gather(
    values: Tensor,  # [S, C]
    segments: Segments | SegmentTree,
) -> Tensor:
    """Broadcast each segment's row back to its members: ``values[index]`` ``[P, C]`` with a fast gradient.

    Args:
        values: ``[S, C]`` floating point; the gradient of half precision accumulates in float32.
        segments: the grouping of the P rows; a ``SegmentTree`` in an exported graph.

    Raises:
        ValueError: if ``values`` is not a floating-point matrix with one row for each segment.
    """
    if isinstance(segments, SegmentTree):
        return segments.gather(values)
    _check_rows(values, segments.num_segments, segments)
    if values.device.type != "cpu":
        return segment_gather_reference(values, segments)
    return _Gather.apply(values, segments)


def segment_gather_reference(values: Tensor, segments: Segments) -> Tensor:
    """``segment_gather`` in plain torch; the cast makes the gradient accumulate in float32."""
    return _wide(values)[segments.index].to(values.dtype)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        out = values.new_empty(segments.num_segments, values.shape[1])
        _run(kernels.segment_sum, segments, values.numel(), values, segments.order, segments.offsets, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradients, ctx.segments), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return values.index_select(0, segments.index)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        return segment_sum(gradients, ctx.segments), None


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        out = values.new_empty(segments.num_segments, values.shape[1])
        winners = torch.empty(out.shape, dtype=torch.int32)
        _run(kernels.segment_max, segments, values.numel(), values, segments.order, segments.offsets, out, winners)
        ctx.save_for_backward(winners)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        segments = ctx.segments
        out = gradients.new_empty(len(segments.index), gradients.shape[1])
        tensors = (gradients, *ctx.saved_tensors, segments.order, segments.offsets, out)
        _run(kernels.scatter_to_winners, segments, out.numel(), *tensors)
        return out, None


def _run(kernel: Any, segments: Segments, work: int, *tensors: Tensor) -> None:
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    threads.run(kernel, threads.by_load(segments.offsets.numpy(), work), *arrays)


def _wide(values: Tensor) -> Tensor:
    """Return ``values`` in the dtype that sums are accumulated in."""
    return values.float() if values.dtype in HALF else values


def _check_rows(values: Tensor, rows: int, segments: Segments) -> None:
    check_tensor("values", values, (rows, None), FLOATS)
    check_same_device(values=values, index=segments.index)
