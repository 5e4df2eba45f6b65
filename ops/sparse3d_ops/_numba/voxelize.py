"""Voxelization on a CPU: cell of each point, then the rank of each occupied cell in a bitmap of the grid."""

from __future__ import annotations

import numpy as np
from numba import njit

MAX_BITMAP_CELLS = 1 << 31  # 256 MiB of bits and as many of ranks; larger grids are sorted instead


@njit(cache=True, nogil=True, error_model="numpy")
def cell_keys(
    start: int,
    stop: int,
    points: np.ndarray,  # [P, >= 3] float32
    batch: np.ndarray,  # [P] int64
    bounds: np.ndarray,  # [3, 3] float32: lower, upper, size
    shape: np.ndarray,  # [3] int64 (x, y, z)
    keep_outside_z: bool,
    keys: np.ndarray,  # [P] int64, out: packed key, -1 outside
) -> None:
    """Write the key of each point's cell; see the top of ``sparse3d_ops/voxelize.py`` for the rule."""
    for point in range(start, stop):
        inside = True
        key = batch[point]
        for axis in (2, 1, 0):
            value = points[point, axis]
            inside &= (bounds[0, axis] <= value < bounds[1, axis]) or (keep_outside_z and axis == 2)
            cell = np.floor((value - bounds[0, axis]) / bounds[2, axis])
            key = key * shape[axis] + np.int64(min(max(cell, np.float32(0)), np.float32(shape[axis] - 1)))
        keys[point] = key if inside else -1


@njit(cache=True, nogil=True)
def rank_in_bitmap(
    keys: np.ndarray,  # [P] int64, -1 is skipped
    num_cells: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted unique keys ``[V]`` and each key's row among them ``[P]`` (-1 for a skipped one).

    One bit a cell; the row of a key is the number of bits set below its own.
    """
    words = np.zeros((num_cells + 63) >> 6, np.uint64)
    for key in keys:
        if key >= 0:
            words[key >> 6] |= np.uint64(1) << np.uint64(key & 63)
    below, total = _count_bits_below(words)
    unique = np.empty(total, np.int64)
    rows = np.empty(len(keys), np.int64)
    for point in range(len(keys)):
        key = keys[point]
        if key < 0:
            rows[point] = -1
            continue
        lower_bits = words[key >> 6] & ((np.uint64(1) << np.uint64(key & 63)) - np.uint64(1))
        row = below[key >> 6] + _popcount(lower_bits)
        rows[point] = row
        unique[row] = key
    return unique, rows


@njit(cache=True, nogil=True)
def _count_bits_below(words: np.ndarray) -> tuple[np.ndarray, np.int64]:
    below = np.empty(len(words), np.int64)
    total = np.int64(0)
    for word in range(len(words)):
        below[word] = total
        if words[word] != 0:
            total += _popcount(words[word])
    return below, total


@njit(cache=True, nogil=True)
def _popcount(word: np.uint64) -> np.int64:
    """Return the number of set bits: sums of neighbouring 1, 2, 4 bits, then of the eight bytes by a product."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
