"""Kernel maps on a CPU, by bits.

The occupied (z, y) lines of the fine grid lie side by side in a bitmap, one bit a cell, with as many empty cells before
and after each line as a tap may point outside. Whether a tap finds a site is one bit, and the site's row is the number
of bits before it; whether there is a line under a tap is one bit of a bitmap of lines. So nothing is sought, and no
branch depends on where neighbours are. See ``sparse/geometry.py`` for the rule; ``steps`` is int64 ``[4, 3]``: kernel
size, stride, padding, dilation along (z, y, x). Indices of inner loops are unsigned, which numba need not test for
negative ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from . import threads
from .bits import lowest, popcount

PART_ROWS = 4096  # coarse sites whose pairs are found together, within a core's cache; measured
STEPS_A_TAP = 2  # elementary steps of asking for a pair
LANES = 8  # sites that are written at once


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
def lay_out(
    keys: np.ndarray,  # [N] int64, ascending
    width: int,
    padding: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers ``key // width`` of the lines that hold a site ``[L]``, and each site's bit ``[N]``, int64.

    Site x of the line that is l-th among them has the bit ``l * (width + padding) + padding + x``.
    """
    lines, places = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    count, begin, shift = 0, np.int64(-1), np.int64(0)
    for row in range(len(keys)):
        if begin < 0 or keys[row] - begin >= width:
            lines[count] = keys[row] // width
            begin = lines[count] * width
            shift = count * (width + padding) + padding - begin
            count += 1
        places[row] = keys[row] + shift
    return lines[:count].copy(), places


@njit(cache=True, nogil=True)
def rank(
    places: np.ndarray,  # [N] int64, ascending
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a bitmap of ``size`` bits ``[W]`` uint64, and how many bits there are up to each word's end ``[W]`` int32.

    The second is undefined for words without bits.
    """
    words, ends = np.zeros((size >> 6) + 1, np.uint64), np.empty((size >> 6) + 1, np.int32)
    for row in range(len(places)):
        place = np.uint64(places[row])
        words[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))
        ends[place >> np.uint64(6)] = row + 1
    return words, ends


def find_pairs(
    coarse: np.ndarray,  # [M, 4] int32, ascending
    lines: tuple[np.ndarray, np.ndarray],  # fine lines, by ``rank``
    sites: tuple[np.ndarray, np.ndarray],  # fine sites, by ``rank``
    shape: np.ndarray,  # [3] int64, of the fine grid
    steps: np.ndarray,  # [4, 3] int64
    num_taps: int,  # the first so many
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fine rows and coarse rows ``[P]`` int32, tap after tap, and offsets ``[num_taps + 1]`` int64."""
    starts = line_starts(coarse)
    bounds = threads.cut(starts, max(1, len(coarse) // PART_ROWS))
    found: list[Any] = [None] * (len(bounds) - 1)

    def find(first: int, last: int) -> None:
        for part in range(first, last):
            found[part] = join(bounds[part], bounds[part + 1], coarse, starts, lines, sites, shape, steps, num_taps)

    ranges = threads.even(len(found), len(coarse) * num_taps * STEPS_A_TAP)
    threads.run(find, ranges)
    counts = np.stack([part[2] for part in found])
    offsets = np.concatenate([[0], counts.sum(0).cumsum()])
    places = offsets[:-1] + counts.cumsum(0) - counts
    fine_rows, coarse_rows = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)

    def place(first: int, last: int) -> None:
        for part in range(first, last):
            collect(found[part], places[part], fine_rows, coarse_rows)

    threads.run(place, ranges)
    return fine_rows, coarse_rows, offsets


@njit(cache=True, nogil=True)
def join(
    start: int,
    stop: int,
    coarse: np.ndarray,  # [M, 4] int32, ascending
    starts: np.ndarray,  # [L + 1] int64, first site of each line of ``coarse``
    lines: tuple[np.ndarray, np.ndarray],  # fine lines, by ``rank``
    sites: tuple[np.ndarray, np.ndarray],  # fine sites, by ``rank``
    shape: np.ndarray,  # [3] int64, of the fine grid
    steps: np.ndarray,  # [4, 3] int64
    num_taps: int,  # the first so many
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of the coarse lines ``start`` to ``stop``.

    Fine rows and coarse rows ``[P]`` int32, tap after tap, and the pairs of each tap ``[num_taps]`` int64.
    """
    size, stride, dilation = steps[0], steps[1], steps[3]
    first, most = starts[start], starts[stop] - starts[start]
    begins = np.zeros(most + LANES, np.int32)
    for row in range(most):
        begins[row] = coarse[first + row, 3] * stride[2]
    rows, places = np.empty(most + LANES, np.int32), np.empty(most + LANES, np.int32)
    fine, coarse_rows = np.empty(num_taps * most, np.int32), np.empty(num_taps * most, np.int32)
    counts = np.zeros(num_taps, np.int64)
    filled, met = np.int64(0), np.int64(0)
    for tap in range(num_taps):
        if tap % size[2] == 0:
            met = _meet(start, stop, coarse, starts, lines, shape, steps, tap // size[2], begins, rows, places)
        offset = tap % size[2] * dilation[2]
        counts[tap] = _look_up(rows[:met], places[:met], offset, sites, fine[filled:], coarse_rows[filled:])
        filled += counts[tap]
    return fine[:filled].copy(), coarse_rows[:filled].copy(), counts


@njit(cache=True, nogil=True)
def _meet(
    start: int,
    stop: int,
    coarse: np.ndarray,
    starts: np.ndarray,
    lines: tuple[np.ndarray, np.ndarray],
    shape: np.ndarray,
    steps: np.ndarray,
    tap_line: int,
    begins: np.ndarray,  # [M + LANES] int32, stride * x of the coarse sites
    rows: np.ndarray,  # [M + LANES] int32, out
    places: np.ndarray,  # [M + LANES] int32, out
) -> np.int64:
    """Write the coarse sites that have a fine line under the taps of a line, and their bits under the first of these.

    Return their number. Most lines are short, so sites are written ``LANES`` at a time, and the next line overwrites
    those beyond the end of a line.
    """
    size, stride, padding, dilation = steps
    words, ends = lines
    z_offset = tap_line // size[1] * dilation[0] - padding[0]
    y_offset = tap_line % size[1] * dilation[1] - padding[1]
    met = np.uint64(0)
    for line in range(start, stop):
        first = starts[line]
        z = coarse[first, 1] * stride[0] + z_offset
        y = coarse[first, 2] * stride[1] + y_offset
        if z < 0 or z >= shape[0] or y < 0 or y >= shape[1]:
            continue
        number = np.uint64((coarse[first, 0] * shape[0] + z) * shape[1] + y)
        index = number >> np.uint64(6)
        word = words[index] >> (number & np.uint64(63)) if index < np.uint64(len(words)) else np.uint64(0)
        if not word & np.uint64(1):
            continue
        line_begin = (ends[index] - popcount(word)) * (shape[2] + padding[2])
        own, count = np.uint64(first - starts[start]), np.uint64(starts[line + 1] - first)
        for block in range(np.uint64(0), count, np.uint64(LANES)):
            for lane in range(np.uint64(LANES)):
                rows[met + block + lane] = first + np.int64(block + lane)
                places[met + block + lane] = line_begin + begins[own + block + lane]
        met += count
    return np.int64(met)


@njit(cache=True, nogil=True)
def _look_up(
    rows: np.ndarray,  # [M] int32
    places: np.ndarray,  # [M] int32
    offset: int,
    sites: tuple[np.ndarray, np.ndarray],
    fine: np.ndarray,  # out
    coarse: np.ndarray,  # out
) -> np.int64:
    """Write the pairs of those coarse sites whose bit ``places + offset`` is set, and return their number.

    Every pair is written, and the next one overwrites it unless it counts.
    """
    words, ends = sites
    found = np.uint64(0)
    for index in range(len(rows)):
        place = np.uint64(places[index] + offset)
        word = words[place >> np.uint64(6)] >> (place & np.uint64(63))
        fine[found] = ends[place >> np.uint64(6)] - popcount(word)
        coarse[found] = rows[index]
        found += word & np.uint64(1)
    return np.int64(found)


@njit(cache=True, nogil=True)
def collect(
    part: tuple[np.ndarray, np.ndarray, np.ndarray],  # of ``join``
    places: np.ndarray,  # [K] int64, where the pairs of each tap go
    fine: np.ndarray,  # [P] int32, out
    coarse: np.ndarray,  # [P] int32, out
) -> None:
    """Copy the pairs that one call of ``join`` found to their places among all."""
    part_fine, part_coarse, counts = part
    begin = 0
    for tap in range(len(counts)):
        end, place = begin + counts[tap], places[tap]
        fine[place : place + counts[tap]] = part_fine[begin:end]
        coarse[place : place + counts[tap]] = part_coarse[begin:end]
        begin = end


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
        total += popcount(word)
    keys = np.empty(total, np.int64)
    place = 0
    for index in range(len(words)):
        word = words[index]
        while word != 0:
            keys[place] = (index << 6) + lowest(word)
            place += 1
            word &= word - np.uint64(1)
    return keys
