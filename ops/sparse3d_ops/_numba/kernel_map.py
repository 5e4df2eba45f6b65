"""Kernel maps on a CPU, without a table to look things up in.

Sites are in key order, so the sites of one (z, y) line are neighbours, and under one tap the lines sought ascend with
the lines that seek: both lists of lines are walked once side by side, and so are the sites of two lines that meet. One
walk serves all taps of a line. See ``sparse/geometry.py`` for the rule; ``steps`` is int64 ``[4, 3]``: kernel size,
stride, padding, dilation along (z, y, x).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def line_starts(
    coords: np.ndarray,  # [N, 4] int32, ascending
) -> np.ndarray:
    """Return the first site of each line of sites, and last N: ``[L + 1]`` int64."""
    starts = np.empty(len(coords) + 1, np.int64)
    lines = 0
    batch, z, y = np.int32(-1), np.int32(-1), np.int32(-1)
    for row in range(len(coords)):
        if coords[row, 2] != y or coords[row, 1] != z or coords[row, 0] != batch:
            batch, z, y = coords[row, 0], coords[row, 1], coords[row, 2]
            starts[lines] = row
            lines += 1
    starts[lines] = len(coords)
    return starts[: lines + 1].copy()


@njit(cache=True, nogil=True)
def key_lines(
    keys: np.ndarray,  # [N] int64, ascending
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first key of each line, and last N: ``[L + 1]`` int64; and the lines' numbers ``[L]`` int64."""
    starts, numbers = np.empty(len(keys) + 1, np.int64), np.empty(len(keys), np.int64)
    lines = 0
    begin = np.int64(-1)
    for row in range(len(keys)):
        if begin < 0 or keys[row] - begin >= width:
            number = keys[row] // width
            begin = number * width
            starts[lines], numbers[lines] = row, number
            lines += 1
    starts[lines] = len(keys)
    return starts[: lines + 1].copy(), numbers[:lines].copy()


@njit(cache=True, nogil=True)
def join(
    start: int,
    stop: int,
    coarse: np.ndarray,  # [M, 4] int32, ascending
    coarse_starts: np.ndarray,  # [L + 1] int64, first site of each line
    fine_keys: np.ndarray,  # [N] int64, ascending
    fine_starts: np.ndarray,  # [F + 1] int64
    fine_lines: np.ndarray,  # [F] int64, numbers of the lines
    shape: np.ndarray,  # [3] int64, of the fine grid
    steps: np.ndarray,  # [4, 3] int64
    num_taps: int,  # the first so many
    fine_rows: np.ndarray,  # [num_taps, M] int32, out from the first site of line ``start`` on
    coarse_rows: np.ndarray,  # [num_taps, M] int32, out likewise
    counts: np.ndarray,  # [num_taps, M] int32, out: pairs of each tap, at the first site of line ``start``
) -> None:
    """Write the pairs of the coarse lines ``start`` to ``stop`` under each tap."""
    if start == stop:
        return
    size, stride, padding, dilation = steps
    column = coarse_starts[start]
    for tap_line in range((num_taps + size[2] - 1) // size[2]):
        first_tap = tap_line * size[2]
        taps = min(size[2], num_taps - first_tap)
        z_offset = (tap_line // size[1]) * dilation[0] - padding[0]
        y_offset = (tap_line % size[1]) * dilation[1] - padding[1]
        filled = np.zeros(taps, np.int64)
        place = np.int64(-1)
        for line in range(start, stop):
            first = coarse[coarse_starts[line]]
            z = first[1] * stride[0] + z_offset
            y = first[2] * stride[1] + y_offset
            if z < 0 or z >= shape[0] or y < 0 or y >= shape[1]:
                continue
            number = (first[0] * shape[0] + z) * shape[1] + y
            if place < 0:
                place = np.searchsorted(fine_lines, number)
            while place < len(fine_lines) and fine_lines[place] < number:
                place += 1
            if place == len(fine_lines):
                break
            if fine_lines[place] > number:
                continue
            near, end = fine_starts[place], fine_starts[place + 1]
            for row in range(coarse_starts[line], coarse_starts[line + 1]):
                begin = number * shape[2] + coarse[row, 3] * stride[2] - padding[2]  # the site under the first tap
                while near < end and fine_keys[near] < begin:
                    near += 1
                ahead = near
                while ahead < end:
                    tap = fine_keys[ahead] - begin
                    if tap > (taps - 1) * dilation[2]:
                        break
                    if dilation[2] != 1:
                        tap = tap // dilation[2] if tap % dilation[2] == 0 else np.int64(-1)
                    if tap >= 0:
                        fine_rows[first_tap + tap, column + filled[tap]] = ahead
                        coarse_rows[first_tap + tap, column + filled[tap]] = row
                        filled[tap] += 1
                    ahead += 1
        for tap in range(taps):
            counts[first_tap + tap, column] = filled[tap]


@njit(cache=True, nogil=True)
def collect(
    bounds: np.ndarray,  # [R + 1] int64, the ranges of sites that were joined
    counts: np.ndarray,  # [K', M] int32, of ``join``
    fine_rows: np.ndarray,  # [K', M] int32
    coarse_rows: np.ndarray,  # [K', M] int32
    mirror: bool,
    num_taps: int,
    num_rows: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fine rows, coarse rows ``[P]`` int32 and offsets ``[K + 1]`` int64 of the joined ranges.

    With ``mirror`` only the taps before the centre were joined: each site is its own partner under the centre, and the
    pairs of an opposite tap are those of the tap with sides exchanged.
    """
    joined = len(counts)
    offsets = np.zeros(num_taps + 1, np.int64)
    for tap in range(joined):
        for part in range(len(bounds) - 1):
            if bounds[part] < bounds[part + 1]:
                offsets[tap + 1] += counts[tap, bounds[part]]
    if mirror:
        offsets[joined + 1] = num_rows
        for tap in range(joined):
            offsets[num_taps - tap] = offsets[tap + 1]
    offsets = np.cumsum(offsets)
    fine, coarse = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
    for tap in range(joined):
        place, opposite = offsets[tap], offsets[num_taps - 1 - tap]
        for part in range(len(bounds) - 1):
            start = bounds[part]
            if start == bounds[part + 1]:
                continue
            for pair in range(start, start + counts[tap, start]):
                fine[place] = fine_rows[tap, pair]
                coarse[place] = coarse_rows[tap, pair]
                if mirror:
                    fine[opposite] = coarse_rows[tap, pair]
                    coarse[opposite] = fine_rows[tap, pair]
                    opposite += 1
                place += 1
    if mirror:
        for row in range(num_rows):
            fine[offsets[joined] + row] = row
            coarse[offsets[joined] + row] = row
    return fine, coarse, offsets


@njit(cache=True, nogil=True)
def reach(
    coords: np.ndarray,  # [N, 4] int32, ascending
    starts: np.ndarray,  # [L + 1] int64, first site of each line
    shape: np.ndarray,  # [3] int64, of the grid that is reached
    steps: np.ndarray,  # [4, 3] int64
    to_coarse: bool,
    words: np.ndarray,  # [cells / 64] uint64, zeros
) -> np.ndarray:
    """Return the ascending keys of all sites that a tap reaches from a site, after marking them in a bitmap."""
    sites = np.empty((3, steps[0].max()), np.int64)
    found = np.empty(3, np.int64)
    for line in range(len(starts) - 1):
        first = starts[line]
        for axis in range(2):
            found[axis] = _reach_axis(coords[first, 1 + axis], axis, shape[axis], steps, to_coarse, sites[axis])
        for row in range(first, starts[line + 1]):
            found[2] = _reach_axis(coords[row, 3], 2, shape[2], steps, to_coarse, sites[2])
            for z in range(found[0]):
                for y in range(found[1]):
                    begin = ((coords[row, 0] * shape[0] + sites[0, z]) * shape[1] + sites[1, y]) * shape[2]
                    for x in range(found[2]):
                        key = begin + sites[2, x]
                        words[key >> 6] |= np.uint64(1) << np.uint64(key & 63)
    return _marked(words)


@njit(cache=True, nogil=True)
def _reach_axis(site: int, axis: int, extent: int, steps: np.ndarray, to_coarse: bool, sites: np.ndarray) -> np.int64:
    """Write where the taps take a site along an axis, and return how many stay in the grid."""
    size, stride, padding, dilation = steps[0, axis], steps[1, axis], steps[2, axis], steps[3, axis]
    found = np.int64(0)
    for tap in range(size):
        if to_coarse:
            scaled = site + padding - tap * dilation
            reached = scaled // stride
            if reached * stride != scaled:
                continue
        else:
            reached = site * stride + tap * dilation - padding
        if 0 <= reached < extent:
            sites[found] = reached
            found += 1
    return found


@njit(cache=True, nogil=True)
def _marked(words: np.ndarray) -> np.ndarray:
    """Return the places of the set bits, ascending."""
    total = np.int64(0)
    for word in words:
        while word != 0:
            word &= word - np.uint64(1)
            total += 1
    keys = np.empty(total, np.int64)
    place = 0
    for index in range(len(words)):
        word = words[index]
        bit = index << 6
        while word != 0:
            if word & np.uint64(1):
                keys[place] = bit
                place += 1
            word >>= np.uint64(1)
            bit += 1
    return keys
