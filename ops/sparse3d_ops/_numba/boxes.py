"""Box kernels on a CPU, in float64.

The overlap of two rectangles is found in the frame of the first one: the second is clipped by the four sides of the
first (Sutherland and Hodgman, 1974), and the shoelace formula measures what is left.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

MAX_VERTICES = 64  # 8 suffice for convex polygons; each of four clips at most doubles 4, whatever rounding does


@njit(cache=True, nogil=True)
def iou_matrix(
    start: int,
    stop: int,
    a: np.ndarray,  # [N, 7] float64
    b: np.ndarray,  # [M, 7] float64
    out: np.ndarray,  # [N, M] float64
) -> None:
    """Write the 3D IoU of every pair."""
    polygons = np.empty((2, MAX_VERTICES, 2))
    for i in range(start, stop):
        for j in range(len(b)):
            out[i, j] = _iou(a[i], b[j], polygons)


@njit(cache=True, nogil=True)
def iou_pairs(
    start: int,
    stop: int,
    a: np.ndarray,  # [N, 7] float64
    b: np.ndarray,  # [N, 7] float64
    out: np.ndarray,  # [N] float64
) -> None:
    """Write the 3D IoU of equal rows."""
    polygons = np.empty((2, MAX_VERTICES, 2))
    for i in range(start, stop):
        out[i] = _iou(a[i], b[i], polygons)


@njit(cache=True, nogil=True)
def nms(
    boxes: np.ndarray,  # [N, 7] float64, in descending score order
    labels: np.ndarray,  # [N] int64
    samples: np.ndarray,  # [N] int64 in [0, N)
    threshold: float,
    max_output: int,
) -> np.ndarray:
    """Return the mask ``[N]`` of boxes that no kept earlier box of their label and sample overlaps too much."""
    polygons = np.empty((2, MAX_VERTICES, 2))
    keep = np.zeros(len(boxes), np.bool_)
    kept = np.empty(len(boxes), np.int64)
    num_kept = 0
    num_in_sample = np.zeros(len(boxes), np.int64)
    for i in range(len(boxes)):
        if num_in_sample[samples[i]] >= max_output:
            continue
        covered = False
        for k in range(num_kept):
            j = kept[k]
            if labels[i] == labels[j] and samples[i] == samples[j] and _iou(boxes[j], boxes[i], polygons) > threshold:
                covered = True
                break
        if not covered:
            keep[i] = True
            kept[num_kept] = i
            num_kept += 1
            num_in_sample[samples[i]] += 1
    return keep


@njit(cache=True, nogil=True)
def _iou(a: np.ndarray, b: np.ndarray, polygons: np.ndarray) -> float:
    dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    height = min(a[5], b[5], (a[5] + b[5]) / 2 - abs(dz))
    reach = (math.hypot(a[3], a[4]) + math.hypot(b[3], b[4])) / 2
    if height <= 0 or dx * dx + dy * dy >= reach * reach:
        return 0.0
    cos, sin = math.cos(a[6]), math.sin(a[6])
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    common = _overlap(a[3] / 2, a[4] / 2, x, y, b[3] / 2, b[4] / 2, b[6] - a[6], polygons) * height
    union = a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - common
    return min(max(common / union, 0.0), 1.0) if union > 0 else 0.0


@njit(cache=True, nogil=True)
def _overlap(
    half_l: float, half_w: float, x: float, y: float, other_l: float, other_w: float, yaw: float, polygons: np.ndarray
) -> float:
    """Return the area common to the rectangle ``|x| <= half_l, |y| <= half_w`` and a turned one about ``(x, y)``."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    for corner in range(4):  # counter-clockwise
        u = other_l if corner == 0 or corner == 3 else -other_l
        v = other_w if corner < 2 else -other_w
        polygons[0, corner, 0] = x + cos * u - sin * v
        polygons[0, corner, 1] = y + sin * u + cos * v
    count = _clip(polygons[0], 4, polygons[1], 0, 1.0, half_l)
    count = _clip(polygons[1], count, polygons[0], 0, -1.0, half_l)
    count = _clip(polygons[0], count, polygons[1], 1, 1.0, half_w)
    count = _clip(polygons[1], count, polygons[0], 1, -1.0, half_w)
    return _area(polygons[0], count)


@njit(cache=True, nogil=True)
def _clip(polygon: np.ndarray, count: int, out: np.ndarray, axis: int, sign: float, bound: float) -> int:
    """Keep the part of a polygon with ``sign * p[axis] <= bound``; return its number of vertices."""
    kept = 0
    for vertex in range(count):
        p, q = polygon[vertex], polygon[vertex + 1 if vertex + 1 < count else 0]
        p_out, q_out = sign * p[axis] - bound, sign * q[axis] - bound
        if p_out <= 0:
            out[kept, 0], out[kept, 1] = p[0], p[1]
            kept += 1
        if (p_out < 0 < q_out) or (q_out < 0 < p_out):
            t = p_out / (p_out - q_out)
            out[kept, 0] = p[0] + t * (q[0] - p[0])
            out[kept, 1] = p[1] + t * (q[1] - p[1])
            out[kept, axis] = sign * bound
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _area(polygon: np.ndarray, count: int) -> float:
    total = 0.0
    for vertex in range(2, count):
        ux, uy = polygon[vertex - 1, 0] - polygon[0, 0], polygon[vertex - 1, 1] - polygon[0, 1]
        vx, vy = polygon[vertex, 0] - polygon[0, 0], polygon[vertex, 1] - polygon[0, 1]
        total += ux * vy - uy * vx
    return total / 2


@njit(cache=True, nogil=True)
def first_box(
    start: int,
    stop: int,
    points: np.ndarray,  # [P, 3]
    boxes: np.ndarray,  # [N, 7] float64
    frames: np.ndarray,  # [N, 3] float64: cos(yaw), sin(yaw), squared radius
    out: np.ndarray,  # [P] int64
) -> None:
    """Write the first box that contains each point, -1 where none does."""
    for point in range(start, stop):
        out[point] = -1
        for box in range(len(boxes)):
            if _contains(boxes[box], frames[box], points[point]):
                out[point] = box
                break


@njit(cache=True, nogil=True)
def inside_mask(
    start: int, stop: int, points: np.ndarray, boxes: np.ndarray, frames: np.ndarray, out: np.ndarray
) -> None:
    """Write the mask ``[P, N]`` of points inside boxes; arguments as ``first_box``."""
    for point in range(start, stop):
        for box in range(len(boxes)):
            out[point, box] = _contains(boxes[box], frames[box], points[point])


@njit(cache=True, nogil=True)
def count_inside(
    start: int, stop: int, points: np.ndarray, boxes: np.ndarray, frames: np.ndarray, out: np.ndarray
) -> None:
    """Write the number of points ``[N]`` inside each box; the range is one of boxes."""
    for box in range(start, stop):
        total = 0
        for point in range(len(points)):
            total += _contains(boxes[box], frames[box], points[point])
        out[box] = total


@njit(cache=True, nogil=True)
def _contains(box: np.ndarray, frame: np.ndarray, point: np.ndarray) -> bool:
    dz = point[2] - box[2]
    if abs(dz) > box[5] / 2:
        return False
    dx, dy = point[0] - box[0], point[1] - box[1]
    if dx * dx + dy * dy > frame[2]:
        return False
    along, across = frame[0] * dx + frame[1] * dy, frame[0] * dy - frame[1] * dx
    return abs(along) <= box[3] / 2 and abs(across) <= box[4] / 2
