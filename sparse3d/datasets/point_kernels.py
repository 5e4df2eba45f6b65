"""Passes over all points of a sample, each in one go; they run in data-loader workers, so they use one thread.

    place_scan     finite?  ->  off the own vehicle?  ->  p_key = R p + t, chosen columns, time lag
    move_points    p' = A p + t
    keep_in_range  low <= p < high
    near_boxes     a coarse map seen from above: can the point lie in a box? It spares most points the exact test

Arithmetic is in float64 and rounded once to the dtype of the points. Each kernel has a numpy form of the same name with
`_reference`, which is its definition.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CELL = 0.5  # metres, of the map of `near_boxes`


@njit(cache=True, nogil=True)
def place_scan(
    raw: np.ndarray,  # [P, F] float32
    use: np.ndarray,  # [C] int64, columns to keep, the first three are x, y, z
    pose: np.ndarray,  # [4, 4] float64, scan -> key frame
    close: float,
    lag: float,
    out: np.ndarray,  # [>= P, C or C + 1] float32, written from row 0; a column more takes the time lag
) -> int:
    """Write the points of a scan in the key frame; return their number, or ``-1 - row`` of the first not finite one.

    Points with ``|x| < close`` and ``|y| < close`` in the scan's own frame are left out.
    """
    columns = len(use)
    written = 0
    for row in range(len(raw)):
        total = np.float32(0)
        for column in range(raw.shape[1]):
            total += raw[row, column] * np.float32(0)  # NaN as soon as one value is NaN or infinite
        if total != 0:
            return -1 - row
        x, y, z = np.float64(raw[row, 0]), np.float64(raw[row, 1]), np.float64(raw[row, 2])
        if abs(x) < close and abs(y) < close:
            continue
        for axis in range(3):
            out[written, axis] = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2] * z + pose[axis, 3]
        for column in range(3, columns):
            out[written, column] = raw[row, use[column]]
        if out.shape[1] > columns:
            out[written, columns] = lag
        written += 1
    return written


def place_scan_reference(
    raw: np.ndarray, use: np.ndarray, pose: np.ndarray, close: float, lag: float, out: np.ndarray
) -> int:
    """``place_scan`` in numpy."""
    broken = np.flatnonzero(~np.isfinite(raw).all(axis=1))
    if len(broken):
        return -1 - int(broken[0])
    kept = raw[~(np.abs(raw[:, :2]) < close).all(axis=1)]
    xyz = kept[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    columns = [xyz, kept[:, use[3:]], np.full((len(kept), out.shape[1] - len(use)), lag)]
    out[: len(kept)] = np.concatenate(columns, axis=1)
    return len(kept)


@njit(cache=True, nogil=True)
def move_points(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return points ``[P, F]`` whose x, y, z are moved by ``pose`` ``[4, 4]`` float64."""
    out = np.empty_like(points)
    for row in range(len(points)):
        x, y, z = np.float64(points[row, 0]), np.float64(points[row, 1]), np.float64(points[row, 2])
        for axis in range(3):
            out[row, axis] = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2] * z + pose[axis, 3]
        for column in range(3, points.shape[1]):
            out[row, column] = points[row, column]
    return out


def move_points_reference(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """``move_points`` in numpy."""
    xyz = points[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    return np.concatenate([xyz.astype(points.dtype), points[:, 3:]], axis=1)


@njit(cache=True, nogil=True)
def keep_in_range(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the points ``[P, F]`` with ``low <= x, y, z < high``; bounds ``[3]`` of the points' dtype."""
    out = np.empty_like(points)
    kept = 0
    for row in range(len(points)):
        inside = True
        for axis in range(3):
            inside &= (points[row, axis] >= low[axis]) & (points[row, axis] < high[axis])
        if inside:
            for column in range(points.shape[1]):
                out[kept, column] = points[row, column]
            kept += 1
    return out[:kept]


def keep_in_range_reference(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``keep_in_range`` in numpy."""
    return points[((points[:, :3] >= low) & (points[:, :3] < high)).all(axis=1)]


def near_boxes(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the rows of points ``[P, F]`` that can lie in one of the boxes ``[N, >= 7]``: all that do, and some more.

    There is no reference: which points come in addition is not defined.
    """
    if len(boxes) == 0:
        return np.zeros(0, dtype=np.int64)
    centers = boxes[:, :2].astype(np.float64)
    reach = np.hypot(boxes[:, 3], boxes[:, 4]).astype(np.float64)[:, None] / 2 + CELL / 10  # more than rounding
    low = centers - reach
    origin = low.min(axis=0)
    first, last = ((low - origin) / CELL).astype(np.int64), ((centers + reach - origin) / CELL).astype(np.int64)
    return _in_touched_cells(points, origin, first, last)


@njit(cache=True, nogil=True)
def _in_touched_cells(points: np.ndarray, origin: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the rows of points in the cells ``first`` to ``last`` ``[N, 2]`` of any box."""
    width, height = last[:, 0].max() + 1, last[:, 1].max() + 1
    touched = np.zeros((width, height), np.bool_)
    for box in range(len(first)):
        touched[first[box, 0] : last[box, 0] + 1, first[box, 1] : last[box, 1] + 1] = True
    rows = np.empty(len(points), np.int64)
    found = 0
    for row in range(len(points)):
        x, y = (points[row, 0] - origin[0]) / CELL, (points[row, 1] - origin[1]) / CELL
        if 0 <= x < width and 0 <= y < height and touched[int(x), int(y)]:
            rows[found] = row
            found += 1
    return rows[:found]
