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
    a: np.ndarray,  # [N, 8] float64: the box and half the diagonal seen from above
    b: np.ndarray,  # [M, 8] float64
    out: np.ndarray,  # [N, M] float64
) -> None:
    """Write the 3D IoU of every pair."""
    polygons = np.empty((2, MAX_VERTICES, 2))
    for i in range(start, stop):
        for j in range(len(b)):
            out[i, j] = _iou(a, i, b, j, polygons)


@njit(cache=True, nogil=True)
def iou_pairs(
    start: int,
    stop: int,
    a: np.ndarray,  # [N, 8] float64
    b: np.ndarray,  # [N, 8] float64
    out: np.ndarray,  # [N] float64
) -> None:
    """Write the 3D IoU of equal rows."""
    polygons = np.empty((2, MAX_VERTICES, 2))
    for i in range(start, stop):
        out[i] = _iou(a, i, b, i, polygons)


@njit(cache=True, nogil=True)
def nms(
    boxes: np.ndarray,  # [N, 8] float64, in descending score order
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
            if labels[i] == labels[j] and samples[i] == samples[j] and _iou(boxes, j, boxes, i, polygons) > threshold:
                covered = True
                break
        if not covered:
            keep[i] = True
            kept[num_kept] = i
            num_kept += 1
            num_in_sample[samples[i]] += 1
    return keep


@njit(cache=True, nogil=True)
def _iou(a: np.ndarray, i: int, b: np.ndarray, j: int, polygons: np.ndarray) -> float:
    dx, dy, dz = b[j, 0] - a[i, 0], b[j, 1] - a[i, 1], b[j, 2] - a[i, 2]
    reach = a[i, 7] + b[j, 7]
    height = min(a[i, 5], b[j, 5], (a[i, 5] + b[j, 5]) / 2 - abs(dz))
    if dx * dx + dy * dy >= reach * reach or height <= 0:
        return 0.0
    cos, sin = math.cos(a[i, 6]), math.sin(a[i, 6])
    _place_outline(cos * dx + sin * dy, cos * dy - sin * dx, b[j, 3] / 2, b[j, 4] / 2, b[j, 6] - a[i, 6], polygons)
    common = _clipped_area(a[i, 3] / 2, a[i, 4] / 2, polygons) * height
    union = a[i, 3] * a[i, 4] * a[i, 5] + b[j, 3] * b[j, 4] * b[j, 5] - common
    return min(max(common / union, 0.0), 1.0) if union > 0 else 0.0


@njit(cache=True, nogil=True)
def _place_outline(x: float, y: float, half_l: float, half_w: float, yaw: float, polygons: np.ndarray) -> None:
    """Write the corners of a rectangle about ``(x, y)`` into the first polygon, counter-clockwise."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    for corner in range(4):
        u = half_l if corner == 0 or corner == 3 else -half_l
        v = half_w if corner < 2 else -half_w
        polygons[0, corner, 0] = x + cos * u - sin * v
        polygons[0, corner, 1] = y + sin * u + cos * v


@njit(cache=True, nogil=True)
def _clipped_area(half_l: float, half_w: float, polygons: np.ndarray) -> float:
    """Return the area of the part of the first polygon with ``|x| <= half_l`` and ``|y| <= half_w``."""
    count = _clip(polygons, 0, 4, 0, 1.0, half_l)
    count = _clip(polygons, 1, count, 0, -1.0, half_l)
    count = _clip(polygons, 0, count, 1, 1.0, half_w)
    count = _clip(polygons, 1, count, 1, -1.0, half_w)
    total = 0.0
    for vertex in range(2, count):  # triangles about the first vertex
        ux, uy = polygons[0, vertex - 1, 0] - polygons[0, 0, 0], polygons[0, vertex - 1, 1] - polygons[0, 0, 1]
        vx, vy = polygons[0, vertex, 0] - polygons[0, 0, 0], polygons[0, vertex, 1] - polygons[0, 0, 1]
        total += ux * vy - uy * vx
    return total / 2


@njit(cache=True, nogil=True)
def _clip(polygons: np.ndarray, source: int, count: int, axis: int, sign: float, bound: float) -> int:
    """Write the part of a polygon with ``sign * p[axis] <= bound`` into the other; return its number of vertices."""
    target = 1 - source
    kept = 0
    for vertex in range(count):
        following = vertex + 1 if vertex + 1 < count else 0
        p_out = sign * polygons[source, vertex, axis] - bound
        q_out = sign * polygons[source, following, axis] - bound
        if p_out <= 0:
            polygons[target, kept, 0] = polygons[source, vertex, 0]
            polygons[target, kept, 1] = polygons[source, vertex, 1]
            kept += 1
        if (p_out < 0 < q_out) or (q_out < 0 < p_out):
            t = p_out / (p_out - q_out)
            other = polygons[source, vertex, 1 - axis]
            polygons[target, kept, axis] = sign * bound
            polygons[target, kept, 1 - axis] = other + t * (polygons[source, following, 1 - axis] - other)
            kept += 1
    return kept


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
            if _contains(boxes, frames, box, points, point):
                out[point] = box
                break


@njit(cache=True, nogil=True)
def inside_mask(
    start: int, stop: int, points: np.ndarray, boxes: np.ndarray, frames: np.ndarray, out: np.ndarray
) -> None:
    """Write the mask ``[P, N]`` of points inside boxes; arguments as ``first_box``."""
    for point in range(start, stop):
        for box in range(len(boxes)):
            out[point, box] = _contains(boxes, frames, box, points, point)


@njit(cache=True, nogil=True)
def count_inside(
    start: int, stop: int, points: np.ndarray, boxes: np.ndarray, frames: np.ndarray, out: np.ndarray
) -> None:
    """Write the number of points ``[N]`` inside each box; the range is one of boxes."""
    for box in range(start, stop):
        total = 0
        for point in range(len(points)):
            total += _contains(boxes, frames, box, points, point)
        out[box] = total


@njit(cache=True, nogil=True)
def _contains(boxes: np.ndarray, frames: np.ndarray, box: int, points: np.ndarray, point: int) -> bool:
    dx, dy = points[point, 0] - boxes[box, 0], points[point, 1] - boxes[box, 1]
    if dx * dx + dy * dy > frames[box, 2] or abs(points[point, 2] - boxes[box, 2]) > boxes[box, 5] / 2:
        return False
    along, across = frames[box, 0] * dx + frames[box, 1] * dy, frames[box, 0] * dy - frames[box, 1] * dx
    return abs(along) <= boxes[box, 3] / 2 and abs(across) <= boxes[box, 4] / 2
