"""Where a ray meets a solid, and which way the surface faces there (numba kernels; formulas in `parts.py`).

A hull is six half spaces n . p <= d; a ray enters it at the last plane it passes inwards and leaves at the first it
passes outwards. Cylinders and ellipsoids are quadrics, cylinders closed by two discs.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .parts import CYLINDER, HULL

FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = range(6)  # faces of a hull
MISS = np.inf

kernel = numba.njit(cache=True, nogil=True)


@kernel
def distance_to_part(kind, ox, oy, oz, dx, dy, dz, half, lean):
    """Return the ray parameter at which ``o + t d`` (axes of the part) enters a part, ``inf`` if it does not."""
    if kind == HULL:
        return _hull(ox, oy, oz, dx, dy, dz, half, lean)
    if kind == CYLINDER:
        return _cylinder(ox, oy, oz, dx, dy, dz, half[0], half[2])
    return _ellipsoid(ox, oy, oz, dx, dy, dz, half)


@kernel
def surface_normal(kind, x, y, z, half, lean):
    """Return the outward unit normal (axes of the part) at a point of the surface, and the face of a hull."""
    if kind == HULL:
        return _hull_normal(x, y, z, half, lean)
    if kind == CYLINDER:
        radial = math.sqrt(x * x + y * y)
        if abs(z) / half[2] > radial / half[0]:
            return 0.0, 0.0, math.copysign(1.0, z), TOP if z > 0 else BOTTOM
        return x / radial, y / radial, 0.0, FRONT
    nx, ny, nz = x / (half[0] * half[0]), y / (half[1] * half[1]), z / (half[2] * half[2])
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    return nx / length, ny / length, nz / length, FRONT


@kernel
def hull_plane(face, half, lean):
    """Return normal and offset ``(nx, ny, nz, d)`` of a face of a hull; the normal is not of unit length."""
    if face == FRONT:
        return 1.0, 0.0, lean[0] / (2 * half[2]), half[0] - lean[0] / 2
    if face == BACK:
        return -1.0, 0.0, lean[1] / (2 * half[2]), half[0] - lean[1] / 2
    if face == LEFT:
        return 0.0, 1.0, lean[2] / (2 * half[2]), half[1] - lean[2] / 2
    if face == RIGHT:
        return 0.0, -1.0, lean[2] / (2 * half[2]), half[1] - lean[2] / 2
    if face == TOP:
        return 0.0, 0.0, 1.0, half[2]
    return 0.0, 0.0, -1.0, half[2]


@kernel
def _hull(ox, oy, oz, dx, dy, dz, half, lean):
    enter, leave = 0.0, np.inf
    outside = False
    for face in range(6):
        nx, ny, nz, d = hull_plane(face, half, lean)
        along = nx * dx + ny * dy + nz * dz
        room = d - (nx * ox + ny * oy + nz * oz)  # positive inside
        if room < 0:
            outside = True
            if along >= 0:
                return MISS
            enter = max(enter, room / along)
        elif along > 0:
            leave = min(leave, room / along)
    return enter if outside and enter <= leave else MISS


@kernel
def _cylinder(ox, oy, oz, dx, dy, dz, radius, half_height):
    a = dx * dx + dy * dy
    b = ox * dx + oy * dy
    c = ox * ox + oy * oy - radius * radius
    best = MISS
    root = b * b - a * c
    if root > 0 and c > 0 and b < 0:
        t = (-b - math.sqrt(root)) / a
        if abs(oz + t * dz) <= half_height:
            best = t
    if abs(oz) > half_height and oz * dz < 0:
        t = (math.copysign(half_height, oz) - oz) / dz
        x, y = ox + t * dx, oy + t * dy
        if x * x + y * y <= radius * radius:
            best = min(best, t)
    return best


@kernel
def _ellipsoid(ox, oy, oz, dx, dy, dz, half):
    px, py, pz = ox / half[0], oy / half[1], oz / half[2]
    qx, qy, qz = dx / half[0], dy / half[1], dz / half[2]
    a = qx * qx + qy * qy + qz * qz
    b = px * qx + py * qy + pz * qz
    c = px * px + py * py + pz * pz - 1.0
    root = b * b - a * c
    if c <= 0 or b >= 0 or root <= 0:
        return MISS
    return (-b - math.sqrt(root)) / a


@kernel
def _hull_normal(x, y, z, half, lean):
    best, chosen = -np.inf, 0
    mx, my, mz = 0.0, 0.0, 1.0
    for face in range(6):
        nx, ny, nz, d = hull_plane(face, half, lean)
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        height = (nx * x + ny * y + nz * z - d) / length
        if height > best:
            best, chosen = height, face
            mx, my, mz = nx / length, ny / length, nz / length
    return mx, my, mz, chosen
