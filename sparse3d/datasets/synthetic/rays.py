"""Where a ray meets a solid, and which way the surface faces there (numba kernels).

A hull is six half spaces n . p <= d; a ray enters it at the last plane it passes inwards and leaves at the first it
passes outwards. Cylinders and ellipsoids are quadrics, cylinders closed by two discs. All coordinates are in the axes
of the part; `kind`, `half` and `planes` are arrays of `Parts`. (What runs for every pixel takes its arrays one by one:
taking them out of a tuple there costs reference counting, which halved the speed.)
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .parts import CYLINDER, HULL

FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = range(6)  # faces of a hull, in the order of `Parts.planes`
MISS = np.inf

# Serial kernels: worker processes share the cores. Without "ninf" and "nnan", so that infinities mean what they say.
_OPTIONS = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}
kernel = numba.njit(**_OPTIONS)
# For what kernels call a pixel or a ray: a call would copy all the arrays of its arguments' descriptions.
inlined = numba.njit(**_OPTIONS, forceinline=True)


@inlined
def distance_to_part(kind, half, planes, part, ox, oy, oz, dx, dy, dz):
    """Return the parameter at which the ray ``o + t d`` enters a part, ``inf`` if it does not."""
    if kind[part] == HULL:
        return _hull(planes, part, ox, oy, oz, dx, dy, dz)
    if kind[part] == CYLINDER:
        return distance_to_cylinder(ox, oy, oz, dx, dy, dz, half[part, 0], half[part, 2])
    sx, sy, sz = 1 / half[part, 0], 1 / half[part, 1], 1 / half[part, 2]
    return distance_to_ball(ox * sx, oy * sy, oz * sz, dx * sx, dy * sy, dz * sz)


@inlined
def surface_normal(kind, half, planes, part, x, y, z):
    """Return the outward unit normal at a point of the surface, and the face."""
    if kind[part] == HULL:
        face = _nearest_face(planes, part, x, y, z)
        return planes[part, face, 0], planes[part, face, 1], planes[part, face, 2], face
    if kind[part] == CYLINDER:
        radial = math.sqrt(x * x + y * y)
        if abs(z) * half[part, 0] > radial * half[part, 2]:
            return 0.0, 0.0, math.copysign(1.0, z), TOP if z > 0 else BOTTOM
        return x / radial, y / radial, 0.0, FRONT
    nx, ny, nz = x / half[part, 0] ** 2, y / half[part, 1] ** 2, z / half[part, 2] ** 2
    scale = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
    return nx * scale, ny * scale, nz * scale, FRONT


@inlined
def turn_back(rotation, part, x, y, z):
    """Return a vector in the axes of a part; ``rotation [P, 3, 3]`` takes them to the axes it is given in."""
    return (
        rotation[part, 0, 0] * x + rotation[part, 1, 0] * y + rotation[part, 2, 0] * z,
        rotation[part, 0, 1] * x + rotation[part, 1, 1] * y + rotation[part, 2, 1] * z,
        rotation[part, 0, 2] * x + rotation[part, 1, 2] * y + rotation[part, 2, 2] * z,
    )


@inlined
def distance_to_ball(ox, oy, oz, dx, dy, dz):
    """Return the parameter at which the ray ``o + t d`` enters the unit ball, ``inf`` if it does not.

    An ellipsoid is the unit ball in coordinates divided by its half axes.
    """
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1.0
    root = b * b - a * c
    if c <= 0 or b >= 0 or root <= 0:
        return MISS
    return (-b - math.sqrt(root)) / a


@inlined
def distance_to_cylinder(ox, oy, oz, dx, dy, dz, radius, half_height):
    """Return the parameter at which the ray ``o + t d`` enters a cylinder about z, ``inf`` if it does not."""
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


@inlined
def _hull(planes, part, ox, oy, oz, dx, dy, dz):
    enter, leave = 0.0, np.inf
    outside = False
    for face in range(6):
        nx, ny, nz = planes[part, face, 0], planes[part, face, 1], planes[part, face, 2]
        along = nx * dx + ny * dy + nz * dz
        room = planes[part, face, 3] - (nx * ox + ny * oy + nz * oz)  # positive inside
        if room < 0:
            outside = True
            if along >= 0:
                return MISS
            enter = max(enter, room / along)
        elif along > 0:
            leave = min(leave, room / along)
    return enter if outside and enter <= leave else MISS


@inlined
def _nearest_face(planes, part, x, y, z):
    best, chosen = -np.inf, 0
    for face in range(6):
        height = planes[part, face, 0] * x + planes[part, face, 1] * y + planes[part, face, 2] * z
        height -= planes[part, face, 3]
        if height > best:
            best, chosen = height, face
    return chosen
