"""Voxel keys on a CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def split(
    keys: np.ndarray,  # [N] int64
    depth: int,
    height: int,
    width: int,
    coords: np.ndarray,  # [N, 4] int32, out
) -> None:
    """Write the voxel indices of keys. Neighbours on one line, as in sorted keys, share their divisions."""
    begin, batch, z, y = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for row in range(len(keys)):
        x = keys[row] - begin
        if x < 0 or x >= width:
            line = keys[row] // width
            begin = line * width
            x = keys[row] - begin
            layer, y = line // height, line % height
            batch, z = layer // depth, layer % depth
        coords[row, 0] = batch
        coords[row, 1] = z
        coords[row, 2] = y
        coords[row, 3] = x
