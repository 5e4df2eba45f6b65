"""Segment kernels on a CPU, over the members of each segment in ascending row order.

The channel loop is outside of the member loop where the running value must stay in a register (max), inside where it
must be vectorised (sum); both orders were measured.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def group(
    index: np.ndarray,  # [P] int64 in [0, S)
    num_segments: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the stable counting sort of ``index``: row order ``[P]`` and offsets ``[S + 1]``, int64."""
    offsets = np.zeros(num_segments + 1, np.int64)
    for row in range(len(index)):
        offsets[index[row] + 1] += 1
    for segment in range(num_segments):
        offsets[segment + 1] += offsets[segment]
    cursor = offsets[:-1].copy()
    order = np.empty(len(index), np.int64)
    for row in range(len(index)):
        order[cursor[index[row]]] = row
        cursor[index[row]] += 1
    return order, offsets


@njit(cache=True, nogil=True)
def segment_sum(
    start: int,
    stop: int,
    values: np.ndarray,  # [P, C]
    order: np.ndarray,  # [P] int64
    offsets: np.ndarray,  # [S + 1] int64
    out: np.ndarray,  # [S, C]
) -> None:
    """Write the sum of each segment's rows, added one by one in ascending row order."""
    for segment in range(start, stop):
        total = out[segment]
        total[:] = 0
        for member in range(offsets[segment], offsets[segment + 1]):
            row = values[order[member]]
            for channel in range(len(total)):
                total[channel] += row[channel]


@njit(cache=True, nogil=True)
def segment_max(
    start: int,
    stop: int,
    values: np.ndarray,  # [P, C]
    order: np.ndarray,  # [P] int64
    offsets: np.ndarray,  # [S + 1] int64
    out: np.ndarray,  # [S, C]
    winners: np.ndarray,  # [S, C] int32
) -> None:
    """Write each segment's maximum and the first row that attains it; 0 and -1 for an empty one. NaN wins."""
    for segment in range(start, stop):
        begin, end = offsets[segment], offsets[segment + 1]
        if begin == end:
            out[segment] = 0
            winners[segment] = -1
            continue
        for channel in range(values.shape[1]):
            winner = order[begin]
            best = values[winner, channel]
            for member in range(begin + 1, end):
                value = values[order[member], channel]
                if value > best or (value != value and best == best):
                    best = value
                    winner = order[member]
            out[segment, channel] = best
            winners[segment, channel] = winner


@njit(cache=True, nogil=True)
def scatter_to_winners(
    start: int,
    stop: int,
    gradients: np.ndarray,  # [S, C]
    winners: np.ndarray,  # [S, C] int32
    order: np.ndarray,  # [P] int64
    offsets: np.ndarray,  # [S + 1] int64
    out: np.ndarray,  # [P, C], every row written
) -> None:
    """Write each segment's gradient to the row that won, zero to its other rows."""
    for segment in range(start, stop):
        for member in range(offsets[segment], offsets[segment + 1]):
            row = order[member]
            for channel in range(gradients.shape[1]):
                won = winners[segment, channel] == row
                out[row, channel] = gradients[segment, channel] if won else 0
