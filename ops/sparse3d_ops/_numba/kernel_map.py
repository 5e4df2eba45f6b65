"""Kernel maps on a CPU, without a table to look things up in.

Sites are in key order, and under one tap the keys sought ascend with the sites that seek, so both lists are walked once
side by side. The taps of one (z, y) line are neighbours in memory: one walk serves the line. See ``sparse/geometry.py``
for the rule; ``steps`` is int64 ``[4, 3]``: kernel size, stride, padding, dilation along (z, y, x).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def join(
    start: int,
    stop: int,
    coarse: np.ndarray,  # [M, 4] int32, ascending
    fine_keys: np.ndarray,  # [N] int64, ascending
    shape: np.ndarray,  # [3] int64, of the fine grid
    steps: np.ndarray,  # [4, 3] int64
    num_taps: int,  # the first so many
    fine_rows: np.ndarray,  # [num_taps, M] int32, out from column ``start`` on
    coarse_rows: np.ndarray,  # [num_taps, M] int32, out likewise
    counts: np.ndarray,  # [num_taps, M] int32, out: pairs of each tap in column ``start``
) -> None:
    """Write the pairs of the coarse sites ``start`` to ``stop`` under each tap."""
    if start == stop:
        return
    size, stride, padding, dilation = steps
    for line in range((num_taps + size[2] - 1) // size[2]):
        first_tap = line * size[2]
        taps = min(size[2], num_taps - first_tap)
        z_tap, y_tap = line // size[1], line % size[1]
        filled = np.zeros(taps, np.int64)
        place = np.int64(-1)
        for row in range(start, stop):
            z = coarse[row, 1] * stride[0] + z_tap * dilation[0] - padding[0]
            y = coarse[row, 2] * stride[1] + y_tap * dilation[1] - padding[1]
            if z < 0 or z >= shape[0] or y < 0 or y >= shape[1]:
                continue
            x = coarse[row, 3] * stride[2] - padding[2]
            begin = ((coarse[row, 0] * shape[0] + z) * shape[1] + y) * shape[2]
            lowest = begin + max(x, 0)  # sums stay within the line, so keys near 2**63 do not overflow
            highest = begin + min(x + (taps - 1) * dilation[2], shape[2] - 1)
            if place < 0:
                place = np.searchsorted(fine_keys, lowest)
            while place < len(fine_keys) and fine_keys[place] < lowest:
                place += 1
            ahead = place
            while ahead < len(fine_keys) and fine_keys[ahead] <= highest:
                tap = fine_keys[ahead] - begin - x
                if dilation[2] != 1:
                    tap = tap // dilation[2] if tap % dilation[2] == 0 else -1
                if tap >= 0:
                    fine_rows[first_tap + tap, start + filled[tap]] = ahead
                    coarse_rows[first_tap + tap, start + filled[tap]] = row
                    filled[tap] += 1
                ahead += 1
        for tap in range(taps):
            counts[first_tap + tap, start] = filled[tap]


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
    coords: np.ndarray,  # [N, 4] int32
    shape: np.ndarray,  # [3] int64, of the grid that is reached
    steps: np.ndarray,  # [4, 3] int64
    to_coarse: bool,
    words: np.ndarray,  # [cells / 64] uint64, zeros
) -> np.ndarray:
    """Return the ascending keys of all sites that a tap reaches from a site, after marking them in a bitmap."""
    sites = np.empty((3, steps[0].max()), np.int64)
    found = np.empty(3, np.int64)
    for row in range(len(coords)):
        for axis in range(3):
            found[axis] = _reach_axis(coords[row, 1 + axis], axis, shape[axis], steps, to_coarse, sites[axis])
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
