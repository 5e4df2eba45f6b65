"""Kernel maps on a GPU, without a hash table and without sorting.

Sites that a strided layer reaches are marked in a bitmap of the grid and listed from it, which makes them unique and
puts them in key order. Neighbours are looked for in the ascending keys: the taps of one (z, y) line are neighbouring
keys, so one bisection finds where a line begins, and its taps follow there. See ``sparse/geometry.py`` for the rule.

Tuples ``SIZE``, ``STRIDE``, ``PADDING``, ``DILATION`` run over (z, y, x). Coordinates are int64 on the way, so nothing
overflows near the ends of int32.
"""

from __future__ import annotations

import triton
import triton.language as tl

WORD_BITS = 32
MAX_WORDS = 1 << 25  # of a bitmap: 128 MiB, and as much of counts
BLOCK = 256  # rows or words of a program


@triton.jit
def popcount(bits):
    """Return the number of set bits of int32 words."""
    rest = bits.to(tl.uint32, bitcast=True)
    rest = rest - ((rest >> 1) & 0x55555555)
    rest = (rest & 0x33333333) + ((rest >> 2) & 0x33333333)
    rest = (rest + (rest >> 4)) & 0x0F0F0F0F
    rest = rest + (rest >> 8)
    rest = rest + (rest >> 16)
    return (rest & 63).to(tl.int32)


@triton.jit(do_not_specialize=["count"])
def count_bits(
    words,  # [count] int32
    count,
    counts,  # [count] int32, out
    BLOCK: tl.constexpr,
):
    """Count the bits of every word."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = tl.load(words + place, mask=place < count, other=0)
    tl.store(counts + place, popcount(word), mask=place < count)


@triton.jit(do_not_specialize=["count"])
def list_keys(
    words,  # [count] int32
    ranks,  # [count] int32, bits set in the words before
    count,
    keys,  # int64, out
    BLOCK: tl.constexpr,
):
    """Write the keys whose bits are set, ascending."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = tl.load(words + place, mask=place < count, other=0)
    row = tl.load(ranks + place, mask=place < count, other=0)
    first = place.to(tl.int64) * 32
    for bit in range(32):
        is_set = (word >> bit) & 1
        tl.store(keys + row, first + bit, mask=is_set != 0)
        row += is_set


@triton.jit
def load_site(coords, row, valid):
    """Return the sample and the site ``(z, y, x)`` of rows, as int64."""
    at = coords + row.to(tl.int64) * 4
    sample = tl.load(at, mask=valid, other=0).to(tl.int64)
    z = tl.load(at + 1, mask=valid, other=0).to(tl.int64)
    y = tl.load(at + 2, mask=valid, other=0).to(tl.int64)
    x = tl.load(at + 3, mask=valid, other=0).to(tl.int64)
    return sample, z, y, x


@triton.jit
def reach_axis(
    site, tap, extent, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr, TO_COARSE: tl.constexpr
):
    """Return where a tap takes sites along an axis, and whether that is a site of the other grid."""
    if TO_COARSE:
        scaled = site + PADDING - tap * DILATION
        reached = scaled // STRIDE
        valid = (scaled >= 0) & (reached * STRIDE == scaled) & (reached < extent)
    else:
        reached = site * STRIDE + tap * DILATION - PADDING
        valid = (reached >= 0) & (reached < extent)
    return reached, valid


@triton.jit(do_not_specialize=["count", "depth", "height", "width"])
def reach(
    coords,  # [count, 4] int32
    count,
    depth, height, width,  # of the grid that is reached
    words,  # int32, in and out
    SIZE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr, TO_COARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Set the bit of every site that a tap reaches."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample, z, y, x = load_site(coords, row, row < count)
    for tap in range(SIZE[0] * SIZE[1] * SIZE[2]):
        tap_z, tap_y, tap_x = tap // (SIZE[1] * SIZE[2]), tap // SIZE[2] % SIZE[1], tap % SIZE[2]
        to_z, valid_z = reach_axis(z, tap_z, depth, STRIDE[0], PADDING[0], DILATION[0], TO_COARSE)
        to_y, valid_y = reach_axis(y, tap_y, height, STRIDE[1], PADDING[1], DILATION[1], TO_COARSE)
        to_x, valid_x = reach_axis(x, tap_x, width, STRIDE[2], PADDING[2], DILATION[2], TO_COARSE)
        valid = (row < count) & valid_z & valid_y & valid_x
        key = tl.where(valid, ((sample * depth + to_z) * height + to_y) * width + to_x, 0)
        tl.atomic_or(words + (key >> 5), 1 << (key & 31).to(tl.int32), mask=valid, sem="relaxed")


@triton.jit
def lower_bound(keys, count, key, STEPS: tl.constexpr):
    """Return how many of ``count`` < 2 ** STEPS ascending keys are less than each key."""
    less = tl.zeros_like(key)
    for step in range(STEPS):
        probe = less + (1 << (STEPS - 1 - step))
        value = tl.load(keys + probe - 1, mask=probe <= count, other=0)
        less = tl.where((probe <= count) & (value < key), probe, less)
    return less


@triton.jit(do_not_specialize=["num_coarse", "num_fine", "depth", "height", "width"])
def find(
    coarse,  # [num_coarse, 4] int32
    num_coarse,
    keys,  # [num_fine] int64, ascending
    num_fine,
    depth, height, width,  # of the fine grid
    table,  # [TAPS, num_coarse] int32, out
    SIZE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the fine row under each tap of each coarse row, -1 for none."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample, z, y, x = load_site(coarse, row, row < num_coarse)
    column = table + row
    for line in range(SIZE[0] * SIZE[1]):
        fine_z, valid_z = reach_axis(z, line // SIZE[1], depth, STRIDE[0], PADDING[0], DILATION[0], False)
        fine_y, valid_y = reach_axis(y, line % SIZE[1], height, STRIDE[1], PADDING[1], DILATION[1], False)
        first = ((sample * depth + fine_z) * height + fine_y) * width + x * STRIDE[2] - PADDING[2]
        place = lower_bound(keys, num_fine, first, STEPS)
        for tap in range(SIZE[2]):
            key = first + tap * DILATION[2]
            if DILATION[2] != 1:
                place = lower_bound(keys, num_fine, key, STEPS)
            _, valid_x = reach_axis(x, tap, width, STRIDE[2], PADDING[2], DILATION[2], False)
            value = tl.load(keys + place, mask=place < num_fine, other=0)
            is_there = (place < num_fine) & (value == key)
            found = tl.where(is_there & valid_z & valid_y & valid_x, place, -1)
            tl.store(column, found.to(tl.int32), mask=row < num_coarse)
            place += is_there.to(tl.int64)
            column += num_coarse


@triton.jit(do_not_specialize=["num_rows"])
def order_keys(
    table,  # [TAPS, num_rows] int32
    num_rows,
    bits,  # [TAPS] int32, bit of each tap
    out,  # [num_rows] int64
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write a key by which rows with like taps are neighbours: the set of taps, read as a Gray code."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.zeros([BLOCK], tl.int64)
    column = table + row
    for tap in range(TAPS):
        found = tl.load(column, mask=row < num_rows, other=-1)
        code |= (found >= 0).to(tl.int64) << tl.load(bits + tap).to(tl.int64)
        column += num_rows
    code ^= code >> 32
    code ^= code >> 16
    code ^= code >> 8
    code ^= code >> 4
    code ^= code >> 2
    code ^= code >> 1
    tl.store(out + row, code, mask=row < num_rows)
