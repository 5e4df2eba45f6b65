"""Rows in and out of the products of a sparse convolution, on a CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def gather(
    source: np.ndarray,  # [N, C]
    rows: np.ndarray,  # [P] int32
    out: np.ndarray,  # [P or more, C]
) -> None:
    """Copy ``source[rows]`` to the first rows of ``out``."""
    for pair in range(len(rows)):
        row = source[rows[pair]]
        into = out[pair]
        for channel in range(len(into)):
            into[channel] = row[channel]


@njit(cache=True, nogil=True)
def scatter_add(
    values: np.ndarray,  # [P or more, C]
    rows: np.ndarray,  # [P] int32
    base: int,
    out: np.ndarray,  # [R, C]
) -> None:
    """Add the first rows of ``values`` to the rows ``rows - base`` of ``out``."""
    for pair in range(len(rows)):
        value = values[pair]
        into = out[rows[pair] - base]
        for channel in range(len(into)):
            into[channel] += value[channel]


@njit(cache=True, nogil=True)
def cut_taps(
    outputs: np.ndarray,  # [P] int32, ascending within a tap
    offsets: np.ndarray,  # [K + 1] int64
    rows: int,  # rows of a block
    blocks: int,
) -> np.ndarray:
    """Return where each block of output rows begins in each tap: ``[blocks + 1, K]`` int64."""
    cuts = np.empty((blocks + 1, len(offsets) - 1), np.int64)
    for tap in range(len(offsets) - 1):
        pairs = outputs[offsets[tap] : offsets[tap + 1]]
        for block in range(blocks + 1):
            cuts[block, tap] = offsets[tap] + np.searchsorted(pairs, block * rows)
    return cuts
