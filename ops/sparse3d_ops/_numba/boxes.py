"""Box kernels on a CPU, in float64.

The overlap of two rectangles is found in the frame of the first one: the second is clipped by the four sides of the
first (Sutherland and Hodgman, 1974), and the shoelace formula measures what is left.

What is done for every pair takes numbers, not arrays: numba counts a reference to each array handed to a function,
which costs ten times the arithmetic here.
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
            apart = _apart(b[j, 0] - a[i, 0], b[j, 1] - a[i, 1], a[i, 7] + b[j, 7])
            out[i, j] = 0.0 if apart else _iou(a, i, b, j, polygons)


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
            if labels[i] != labels[j] or samples[i] != samples[j]:
                continue
            if _apart(boxes[i, 0] - boxes[j, 0], boxes[i, 1] - boxes[j, 1], boxes[i, 7] + boxes[j, 7]):
                continue
            if _iou(boxes, j, boxes, i, polygons) > threshold:
                covered = True
                break
        if not covered:
            keep[i] = True
            kept[num_kept] = i
            num_kept += 1
            num_in_sample[samples[i]] += 1
    return keep


@njit(cache=True, nogil=True)
def _apart(dx: float, dy: float, reach: float) -> bool:
    """Return whether two boxes are farther apart than both reach, which is the case of most pairs."""
    return dx * dx + dy * dy > reach * reach


@njit(cache=True, nogil=True)
def _iou(a: np.ndarray, i: int, b: np.ndarray, j: int, polygons: np.ndarray) -> float:
    dx, dy, dz = b[j, 0] - a[i, 0], b[j, 1] - a[i, 1], b[j, 2] - a[i, 2]
    height = min(a[i, 5], b[j, 5], (a[i, 5] + b[j, 5]) / 2 - abs(dz))
    if height <= 0:
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
    boxes: np.ndarray,  # [N, 8] float64: x, y, z, l, w, h, cos(yaw), sin(yaw)
    out: np.ndarray,  # [P] int64
) -> None:
    """Write the first box that contains each point, -1 where none does."""
    for point in range(start, stop):
        x, y, z = points[point, 0], points[point, 1], points[point, 2]
        out[point] = -1
        for box in range(len(boxes)):
            dx, dy, dz = x - boxes[box, 0], y - boxes[box, 1], z - boxes[box, 2]
            if _contains(boxes[box, 3], boxes[box, 4], boxes[box, 5], boxes[box, 6], boxes[box, 7], dx, dy, dz):
                out[point] = box
                break


@njit(cache=True, nogil=True)
def inside_mask(start: int, stop: int, points: np.ndarray, boxes: np.ndarray, out: np.ndarray) -> None:
    """Write the mask ``[P, N]`` of points inside boxes; arguments as ``first_box``."""
    for point in range(start, stop):
        x, y, z = points[point, 0], points[point, 1], points[point, 2]
        for box in range(len(boxes)):
            dx, dy, dz = x - boxes[box, 0], y - boxes[box, 1], z - boxes[box, 2]
            out[point, box] = _contains(
                boxes[box, 3], boxes[box, 4], boxes[box, 5], boxes[box, 6], boxes[box, 7], dx, dy, dz
            )


@njit(cache=True, nogil=True)
def count_inside(start: int, stop: int, points: np.ndarray, boxes: np.ndarray, out: np.ndarray) -> None:
    """Write the number of points ``[N]`` inside each box; the range is one of boxes."""
    for box in range(start, stop):
        x, y, z, cos, sin = boxes[box, 0], boxes[box, 1], boxes[box, 2], boxes[box, 6], boxes[box, 7]
        length, width, height = boxes[box, 3], boxes[box, 4], boxes[box, 5]
        total = 0
        for point in range(len(points)):
            dx, dy, dz = points[point, 0] - x, points[point, 1] - y, points[point, 2] - z
            total += _contains(length, width, height, cos, sin, dx, dy, dz)
        out[box] = total


@njit(cache=True, nogil=True)
def _contains(
    length: float, width: float, height: float, cos: float, sin: float, dx: float, dy: float, dz: float
) -> bool:
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    return (abs(along) <= length / 2) & (abs(across) <= width / 2) & (abs(dz) <= height / 2)
