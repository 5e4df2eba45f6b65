"""Voxelization on a CPU: cell of each point, then the rank of each occupied cell in a bitmap of the grid."""

from __future__ import annotations

import numpy as np
from numba import njit

from .bits import popcount

MAX_BITMAP_CELLS = 1 << 31  # 256 MiB of bits; larger grids are sorted instead
BLOCK_BITS = 3  # log2 of the words in a block: 512 cells share one count, and one cache line of bits


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

    One bit a cell; the row of a key is the number of bits set below its own: those of the blocks before its block, and
    those before it in the block.
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
        row = below[key >> 6 >> BLOCK_BITS]
        for word in range(key >> 6 >> BLOCK_BITS << BLOCK_BITS, key >> 6):
            row += popcount(words[word])
        row += popcount(words[key >> 6] & ((np.uint64(1) << np.uint64(key & 63)) - np.uint64(1)))
        rows[point] = row
        unique[row] = key
    return unique, rows


@njit(cache=True, nogil=True)
def _count_bits_below(words: np.ndarray) -> tuple[np.ndarray, np.int64]:
    """Return the number of bits set before each block of words, and that of all bits set."""
    below = np.empty((len(words) >> BLOCK_BITS) + 1, np.int64)
    total = np.int64(0)
    for word in range(len(words)):
        if word & ((1 << BLOCK_BITS) - 1) == 0:
            below[word >> BLOCK_BITS] = total
        if words[word] != 0:
            total += popcount(words[word])
    return below, total


@njit(cache=True, nogil=True)
def split_keys(
    start: int,
    stop: int,
    keys: np.ndarray,  # [V] int64
    shape: np.ndarray,  # [3] int64 (x, y, z)
    coords: np.ndarray,  # [V, 4] int32, out: (batch, z, y, x)
) -> None:
    """Write the voxel indices of keys."""
    for voxel in range(start, stop):
        key = keys[voxel]
        for axis in range(3):
            rest = key // shape[axis]
            coords[voxel, 3 - axis] = key - rest * shape[axis]
            key = rest
        coords[voxel, 0] = key


@njit(cache=True, nogil=True)
def assign_slots(
    rows: np.ndarray,  # [P] int64, voxel of each point, -1 outside
    coords: np.ndarray,  # [V, 4] int32
    batch_size: int,
    max_points: int,
    max_voxels: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slot of each point in its voxel ``[P]`` (-1: dropped) and the filled slots of each voxel ``[V]``."""
    opened = np.zeros(batch_size, np.int64)
    filled = np.zeros(len(coords), np.int64)
    slots = np.full(len(rows), -1)
    for point in range(len(rows)):
        row = rows[point]
        if row < 0:
            continue
        if filled[row] == 0:
            opened[coords[row, 0]] += 1
            filled[row] = -1 if opened[coords[row, 0]] > max_voxels else 0
        if 0 <= filled[row] < max_points:
            slots[point] = filled[row]
            filled[row] += 1
    return slots, np.maximum(filled, 0)


@njit(cache=True, nogil=True)
def fill_slots(
    start: int,
    stop: int,
    points: np.ndarray,  # [P, F]
    rows: np.ndarray,  # [P] int64
    slots: np.ndarray,  # [P] int64
    new_rows: np.ndarray,  # [V] int64
    voxels: np.ndarray,  # [kept V, max_points, F]
) -> None:
    """Copy points into their slots; no two points share one."""
    for point in range(start, stop):
        if slots[point] >= 0:
            row = new_rows[rows[point]]
            for feature in range(points.shape[1]):
                voxels[row, slots[point], feature] = points[point, feature]
