"""Which part a pixel shows (numba kernels).

A pinhole camera sees the point X = (x', y', 1) / w along the ray of pixel (u, v); x' and y' are affine in u and v. For
a half space n . X <= d of a hull that does not contain the camera (d < 0), w <= (n . (x', y', 1)) / d; for one that
does, w >= the same quotient. Both bounds are affine in (u, v), so a hull is seen where its smallest upper bound is
above its largest lower bound, that upper bound is the inverse depth, and in each row the pixels form one interval,
found from the crossings of all pairs of bounds. The largest inverse depth wins a pixel. A pixel remembers part and
face, as `part * FACES + face`.

Shadows are the same with parallel rays: on the ground, the distances towards the sun at which a ray enters and leaves a
half space are affine in the place.
"""

from __future__ import annotations

import math

import numpy as np

from .parts import ELLIPSOID, HULL, LEAVES, PAVEMENT
from .rays import BOTTOM, FRONT, TOP, distance_to_ball, distance_to_cylinder, inlined, kernel, turn_back
from .textures import noise

NEAR = 0.15  # metres; nothing closer is drawn
RAGGED_RIM = 0.75  # cosine of the angle of view below which crowns begin to thin out
ROAD, SKY = -2, -1
FACES = 8  # numbers that a part occupies in a picture of parts and faces


@kernel
def draw_parts(parts, intrinsic, depth, shown):
    """Draw all parts (camera axes) into inverse depths ``[H, W]`` float32 and parts and faces ``[H, W]`` int32."""
    upper, lower, corners = np.empty((8, 4)), np.empty((8, 4)), np.empty((8, 3))
    for part in range(len(parts.kind)):
        left, right, top, bottom = _screen_box(parts, part, intrinsic, corners, depth.shape)
        if left >= right or top >= bottom:
            continue
        if parts.kind[part] != HULL:
            _draw_round(parts, part, intrinsic, depth, shown, (left, right, top, bottom))
            continue
        uppers, lowers = _hull_bounds(parts, part, intrinsic, upper, lower)
        if uppers:
            for row in range(top, bottom):
                begin, end = _row_span(upper, uppers, lower, lowers, row, left, right)
                _draw_span(upper, uppers, row, begin, end, part * FACES, depth, shown)


@kernel
def draw_ground(rotation, height, intrinsic, depth, shown):
    """Draw the plane z = 0 seen from ``height`` metres; ``rotation`` takes camera axes to the world's."""
    upper, lower = np.empty((1, 4)), np.zeros((1, 4))
    upper[0, 0] = -rotation[2, 0] / (intrinsic[0, 0] * height)
    upper[0, 1] = -rotation[2, 1] / (intrinsic[1, 1] * height)
    upper[0, 2] = -rotation[2, 2] / height - upper[0, 0] * intrinsic[0, 2] - upper[0, 1] * intrinsic[1, 2]
    upper[0, 3] = 0
    for row in range(depth.shape[0]):
        begin, end = _row_span(upper, 1, lower, 1, row, 0, depth.shape[1])
        _draw_span(upper, 1, row, begin, end, ROAD, depth, shown)


@kernel
def draw_shadows(parts, sun, origin, cell, lowest, shadow):
    """Set ``shadow [Y, X]`` uint8 to 255 where a part (world axes) that begins below ``lowest`` hides the sun.

    Args:
        sun: ``[3]`` direction towards the sun.
        origin: ``[2]`` world place of cell (0, 0); ``cell`` is its size in metres.
    """
    upper, lower = np.empty((8, 4)), np.empty((8, 4))
    for part in range(len(parts.kind)):
        reach = math.sqrt(parts.half[part, 0] ** 2 + parts.half[part, 1] ** 2 + parts.half[part, 2] ** 2)
        if parts.pattern[part] == PAVEMENT or parts.center[part, 2] - reach > lowest:
            continue
        left, right, top, bottom = _shadow_box(parts.center, part, reach, sun, origin, cell, shadow.shape)
        if left >= right or top >= bottom:
            continue
        if parts.kind[part] == ELLIPSOID:
            _shade_round(parts, part, sun, origin, cell, shadow, (left, right, top, bottom))
            continue
        uppers, lowers = _shadow_bounds(parts, part, sun, origin, cell, upper, lower)
        for row in range(top, bottom):
            begin, end = _row_span(upper, uppers, lower, lowers, row, left, right)
            for column in range(begin, end):
                shadow[row, column] = 255


# -- hulls -----------------------------------------------------------------------------------------------------------


@inlined
def _hull_bounds(parts, part, intrinsic, upper, lower):
    """Fill in bounds ``(a, b, c, face)`` of the inverse depth, a u + b v + c; returns the numbers of either kind."""
    uppers, lowers = 0, 1
    lower[0] = 0.0  # the depth is positive
    for face in range(6):
        nx, ny, nz, d = _plane(parts, part, face)
        a, b = nx / (intrinsic[0, 0] * d), ny / (intrinsic[1, 1] * d)
        bound = (a, b, nz / d - a * intrinsic[0, 2] - b * intrinsic[1, 2], float(face))
        if d < 0:
            _fill(upper, uppers, bound)
            uppers += 1
        else:
            _fill(lower, lowers, bound)
            lowers += 1
    return uppers, lowers


@inlined
def _plane(parts, part, face):
    """Return normal and offset of a face in the axes that the parts are placed in; the offset is never zero."""
    x, y, z = parts.planes[part, face, 0], parts.planes[part, face, 1], parts.planes[part, face, 2]
    turn = parts.rotation
    nx = turn[part, 0, 0] * x + turn[part, 0, 1] * y + turn[part, 0, 2] * z
    ny = turn[part, 1, 0] * x + turn[part, 1, 1] * y + turn[part, 1, 2] * z
    nz = turn[part, 2, 0] * x + turn[part, 2, 1] * y + turn[part, 2, 2] * z
    d = parts.planes[part, face, 3]
    d += nx * parts.center[part, 0] + ny * parts.center[part, 1] + nz * parts.center[part, 2]
    return nx, ny, nz, d if abs(d) > 1e-9 else 1e-9


@inlined
def _fill(bounds, row, bound):
    for column in range(4):
        bounds[row, column] = bound[column]


@inlined
def _row_span(upper, uppers, lower, lowers, row, left, right):
    """Return the columns ``[begin, end)`` in which every upper bound is above every lower bound."""
    begin, end = float(left), float(right - 1)
    for i in range(uppers):
        for j in range(lowers):
            slope = upper[i, 0] - lower[j, 0]
            rest = (upper[i, 1] - lower[j, 1]) * row + upper[i, 2] - lower[j, 2]
            if slope > 0:
                begin = max(begin, -rest / slope)
            elif slope < 0:
                end = min(end, -rest / slope)
            elif rest < 0:
                return left, left
    if begin > end:
        return left, left
    return math.ceil(begin), math.floor(end) + 1


@inlined
def _draw_span(upper, uppers, row, begin, end, first_code, depth, shown):
    a, c, code = upper[0, 0], upper[0, 1] * row + upper[0, 2], first_code + int(upper[0, 3])
    if uppers == 1:
        for column in range(begin, end):
            inverse = np.float32(a * column + c)
            if inverse > depth[row, column]:
                depth[row, column], shown[row, column] = inverse, code
        return
    for column in range(begin, end):
        inverse, face = a * column + c, code
        for i in range(1, uppers):
            other = upper[i, 0] * column + (upper[i, 1] * row + upper[i, 2])
            if other < inverse:
                inverse, face = other, first_code + int(upper[i, 3])
        if inverse > depth[row, column]:
            depth[row, column], shown[row, column] = inverse, face


# -- round parts -----------------------------------------------------------------------------------------------------


@kernel
def _draw_round(parts, part, intrinsic, depth, shown, screen):
    center, rotation = parts.center, parts.rotation
    hx, hy, hz = parts.half[part, 0], parts.half[part, 1], parts.half[part, 2]
    ox, oy, oz = turn_back(rotation, part, -center[part, 0], -center[part, 1], -center[part, 2])
    ball, ragged = parts.kind[part] == ELLIPSOID, parts.pattern[part] == LEAVES
    for row in range(screen[2], screen[3]):
        y = (row - intrinsic[1, 2]) / intrinsic[1, 1]
        for column in range(screen[0], screen[1]):
            x = (column - intrinsic[0, 2]) / intrinsic[0, 0]
            dx, dy, dz = turn_back(rotation, part, x, y, 1.0)
            if ball:
                distance = distance_to_ball(ox / hx, oy / hy, oz / hz, dx / hx, dy / hy, dz / hz)
            else:
                distance = distance_to_cylinder(ox, oy, oz, dx, dy, dz, hx, hz)
            if distance < NEAR or 1 / distance <= depth[row, column]:
                continue
            px, py, pz = ox + distance * dx, oy + distance * dy, oz + distance * dz
            face = FRONT
            if ragged:
                spot = noise(5 * (px + pz), 5 * (py - pz))
                if _passes(px / (hx * hx), py / (hy * hy), pz / (hz * hz), dx, dy, dz, spot):
                    continue
            elif not ball and abs(pz) * hx > math.sqrt(px * px + py * py) * hz:
                face = TOP if pz > 0 else BOTTOM
            depth[row, column], shown[row, column] = 1 / distance, part * FACES + face


@inlined
def _passes(nx, ny, nz, dx, dy, dz, spot):
    """Return whether a look ``d`` through the thin rim of a crown of normal ``n`` passes between its leaves."""
    length = math.sqrt((nx * nx + ny * ny + nz * nz) * (dx * dx + dy * dy + dz * dz))
    return -(nx * dx + ny * dy + nz * dz) < RAGGED_RIM * spot * length


# -- rectangles that hold a part -------------------------------------------------------------------------------------


@inlined
def _screen_box(parts, part, intrinsic, corners, shape):
    """Return columns ``[left, right)`` and rows ``[top, bottom)`` around what is before the camera of a part."""
    half, turn, before = parts.half, parts.rotation, 0
    for corner in range(8):
        x = half[part, 0] if corner & 1 else -half[part, 0]
        y = half[part, 1] if corner & 2 else -half[part, 1]
        z = half[part, 2] if corner & 4 else -half[part, 2]
        for axis in range(3):
            offset = turn[part, axis, 0] * x + turn[part, axis, 1] * y + turn[part, axis, 2] * z
            corners[corner, axis] = parts.center[part, axis] + offset
        before += corners[corner, 2] > NEAR
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    if before == 0:
        return 0, 0, 0, 0
    for corner in range(8):
        for axis in range(4):  # the corner itself, then where its three edges pass the near plane
            x, y, z = corners[corner, 0], corners[corner, 1], corners[corner, 2]
            if axis < 3:
                other = corner ^ (1 << axis)
                if (z - NEAR) * (corners[other, 2] - NEAR) >= 0:
                    continue
                share = (NEAR - z) / (corners[other, 2] - z)
                x, y, z = x + share * (corners[other, 0] - x), y + share * (corners[other, 1] - y), NEAR
            elif z < NEAR:
                continue
            u = intrinsic[0, 0] * x / z + intrinsic[0, 2]
            v = intrinsic[1, 1] * y / z + intrinsic[1, 2]
            left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    return (
        int(max(0.0, math.floor(left))),
        int(min(float(shape[1]), math.ceil(right) + 1)),
        int(max(0.0, math.floor(top))),
        int(min(float(shape[0]), math.ceil(bottom) + 1)),
    )


@inlined
def _shadow_box(center, part, reach, sun, origin, cell, shape):
    """Return columns and rows around the shadow of a ball of radius ``reach``."""
    x0, x1 = _shadow_range(center, part, 0, reach, sun)
    y0, y1 = _shadow_range(center, part, 1, reach, sun)
    return (
        int(max(0.0, (x0 - origin[0]) / cell)),
        int(min(float(shape[1]), (x1 - origin[0]) / cell + 1)),
        int(max(0.0, (y0 - origin[1]) / cell)),
        int(min(float(shape[0]), (y1 - origin[1]) / cell + 1)),
    )


@inlined
def _shadow_range(center, part, axis, reach, sun):
    slope = sun[axis] / sun[2]
    low, high = max(center[part, 2] - reach, 0.0) * slope, max(center[part, 2] + reach, 0.0) * slope
    return center[part, axis] - reach - max(low, high), center[part, axis] + reach - min(low, high)


# -- shadows ---------------------------------------------------------------------------------------------------------


@inlined
def _shadow_bounds(parts, part, sun, origin, cell, upper, lower):
    """Fill in the distances to leaving (upper) and entering (lower) each half space along the sun's direction."""
    uppers, lowers = 0, 1
    lower[0] = 0.0  # what is behind the ground throws no shadow
    for face in range(6):
        nx, ny, nz, d = _plane(parts, part, face)
        along = nx * sun[0] + ny * sun[1] + nz * sun[2]
        if abs(along) < 1e-9:
            along = 1e-9
        room = d - nx * origin[0] - ny * origin[1]
        bound = (-nx * cell / along, -ny * cell / along, room / along, float(face))
        if along > 0:
            _fill(upper, uppers, bound)
            uppers += 1
        else:
            _fill(lower, lowers, bound)
            lowers += 1
    return uppers, lowers


@kernel
def _shade_round(parts, part, sun, origin, cell, shadow, window):
    rotation, center = parts.rotation, parts.center
    hx, hy, hz = parts.half[part, 0], parts.half[part, 1], parts.half[part, 2]
    dx, dy, dz = turn_back(rotation, part, sun[0], sun[1], sun[2])
    for row in range(window[2], window[3]):
        for column in range(window[0], window[1]):
            x, y = origin[0] + cell * column - center[part, 0], origin[1] + cell * row - center[part, 1]
            ox, oy, oz = turn_back(rotation, part, x, y, -center[part, 2])
            if distance_to_ball(ox / hx, oy / hy, oz / hz, dx / hx, dy / hy, dz / hz) < np.inf:
                shadow[row, column] = 255
