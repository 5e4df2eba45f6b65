"""Sparse convolution on a GPU: one product of matrices over the taps that a tile of output rows has (implicit GEMM).

A program owns a tile of output rows and of output columns. It walks the taps that any of its rows has, and within a tap
the input channels, as one loop, so that the compiler keeps loads of later steps in flight; for that the input rows of
the next step are loaded one step ahead and carried. Sums are in float32; absent neighbours add exact zeros, so the bits
of a row depend neither on its tile nor on the order of rows. The weight's gradient is summed over fixed runs of pairs
of a tap, and the sums of a tap's runs are added in order.

``WIDEN`` casts operands to float32 after loading, for Triton's interpreter, which multiplies bfloat16 wrongly.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rows"])
def implicit_gemm(
    features,  # [N, IN]
    weight,  # [OUT, TAPS, IN], or any strides of it
    bias,  # [OUT], read if HAS_BIAS
    out,  # [M, OUT]
    table,  # [TAPS, num_rows] int32, input row of each tap of each lane, -1 for none
    order,  # [num_rows] int32, output row of each lane, -1 for none
    tiles,  # [num_rows / ROWS, TAPS + 1] int32, the taps of each tile, and last their number
    num_rows,  # padded to a multiple of ROWS
    out_stride, tap_stride, in_stride,  # of the weight
    IN: tl.constexpr, OUT: tl.constexpr, TAPS: tl.constexpr,
    MIRROR: tl.constexpr,  # whether tap k takes the weight of tap TAPS - 1 - k
    HAS_BIAS: tl.constexpr, WIDEN: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Convolve a tile of rows and columns."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # tiles with rare taps, which have many, come last: start there
    lane = tile * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    parts: tl.constexpr = (IN + CHANNELS - 1) // CHANNELS
    taps = tiles + tile.to(tl.int64) * (TAPS + 1)
    steps = tl.load(taps + TAPS) * parts
    tap = tl.load(taps).to(tl.int64)
    row = tl.load(table + tap * num_rows + lane)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(steps):
        following = tl.minimum(step + 1, steps - 1) // parts
        next_tap = tl.load(taps + following).to(tl.int64)
        next_row = tl.load(table + next_tap * num_rows + lane)
        channel = step % parts * CHANNELS + tl.arange(0, CHANNELS)
        left = tl.load(
            features + tl.maximum(row, 0).to(tl.int64)[:, None] * IN + channel[None, :],
            mask=(row >= 0)[:, None] & (channel < IN)[None, :],
            other=0.0,
        )
        weight_tap = TAPS - 1 - tap if MIRROR else tap
        right = tl.load(
            weight + weight_tap * tap_stride + channel[:, None] * in_stride + column[None, :] * out_stride,
            mask=(channel < IN)[:, None] & (column < OUT)[None, :],
            other=0.0,
        )
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        tap, row = next_tap, next_row
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < OUT, other=0.0).to(tl.float32)[None, :]
    target = tl.load(order + lane)
    place = out + tl.maximum(target, 0).to(tl.int64)[:, None] * OUT + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(target >= 0)[:, None] & (column < OUT)[None, :])


@triton.jit
def weight_gradient(
    features,  # [N, IN]
    gradient,  # [M, OUT]
    inputs, outputs,  # [P] int32, the pairs
    runs,  # [R, 2] int64, first and last + 1 pair of each run
    partial,  # [R, OUT, IN] float32, out
    IN: tl.constexpr, OUT: tl.constexpr,
    WIDEN: tl.constexpr, PRECISION: tl.constexpr,
    PAIRS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # of a step, of OUT, of IN
):  # fmt: skip
    """Sum the products of a run's pairs for a tile of the weight."""
    run = tl.program_id(0)
    start, stop = tl.load(runs + run * 2), tl.load(runs + run * 2 + 1)
    channel_out = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel_in = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    pair = start + tl.arange(0, PAIRS)
    source = tl.load(inputs + pair, mask=pair < stop, other=-1)
    target = tl.load(outputs + pair, mask=pair < stop, other=-1)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for _ in range(tl.cdiv(stop - start, PAIRS)):
        pair += PAIRS
        next_source = tl.load(inputs + pair, mask=pair < stop, other=-1)
        next_target = tl.load(outputs + pair, mask=pair < stop, other=-1)
        left = tl.load(
            gradient + tl.maximum(target, 0).to(tl.int64)[None, :] * OUT + channel_out[:, None],
            mask=(target >= 0)[None, :] & (channel_out < OUT)[:, None],
            other=0.0,
        )
        right = tl.load(
            features + tl.maximum(source, 0).to(tl.int64)[:, None] * IN + channel_in[None, :],
            mask=(source >= 0)[:, None] & (channel_in < IN)[None, :],
            other=0.0,
        )
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        source, target = next_source, next_target
    place = partial + run.to(tl.int64) * OUT * IN + channel_out[:, None] * IN + channel_in[None, :]
    tl.store(place, total, mask=(channel_out < OUT)[:, None] & (channel_in < IN)[None, :])


@triton.jit(do_not_specialize=["size"])
def add_runs(
    partial,  # [R, size] float32
    firsts,  # [TAPS + 1] int32, first run of each tap
    out,  # [TAPS, size] float32
    size,
    BLOCK: tl.constexpr,
):
    """Add the sums of a tap's runs, in order."""
    tap = tl.program_id(0)
    entry = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    first = tl.load(firsts + tap)
    place = partial + first.to(tl.int64) * size + entry
    for _ in range(tl.load(firsts + tap + 1) - first):
        total += tl.load(place, mask=entry < size, other=0.0)
        place += size
    tl.store(out + tap.to(tl.int64) * size + entry, total, mask=entry < size)
