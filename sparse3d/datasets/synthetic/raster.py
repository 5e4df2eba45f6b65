"""Which part a pixel shows (numba kernels).

A pinhole camera sees the point X = (x', y', 1) / w along the ray of pixel (u, v); x' and y' are affine in u and v. For
a half space n . X <= d of a hull that does not contain the camera (d < 0), w <= (n . (x', y', 1)) / d; for one that does,
w >= the same quotient. Both bounds are affine in (u, v), so a hull is seen where its smallest upper bound is above its
largest lower bound, that upper bound is the inverse depth, and in each row the pixels form one interval, found from the
crossings of all pairs of bounds. The largest inverse depth wins a pixel.

Shadows are the same with parallel rays: on the ground, the distances towards the sun at which a ray enters and leaves a
half space are affine in the place.
"""

from __future__ import annotations

import math

import numpy as np

from .parts import ELLIPSOID, HULL, LEAVES, PAVEMENT
from .rays import distance_to_part, hull_plane, kernel
from .surfaces import noise

NEAR = 0.15  # metres; nothing closer is drawn
ROAD, SKY = -2, -1


@kernel
def draw_parts(parts, intrinsic, depth, shown):
    """Draw all parts (camera axes) into inverse depths ``[H, W]`` float32 and part numbers ``[H, W]`` int32."""
    upper, lower = np.empty((8, 3)), np.empty((8, 3))
    corners = np.empty((8, 3))
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
                _draw_row(upper[:uppers], lower[:lowers], row, left, right, part, depth[row], shown[row])


@kernel
def draw_ground(rotation, height, intrinsic, depth, shown):
    """Draw the plane z = 0 seen from ``height`` metres; ``rotation`` takes camera axes to the world's."""
    a = -rotation[2, 0] / (intrinsic[0, 0] * height)
    b = -rotation[2, 1] / (intrinsic[1, 1] * height)
    c = -rotation[2, 2] / height - a * intrinsic[0, 2] - b * intrinsic[1, 2]
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            inverse = a * column + b * row + c
            if inverse > depth[row, column]:
                depth[row, column], shown[row, column] = inverse, ROAD


@kernel
def draw_shadows(parts, sun, origin, cell, lowest, shadow):
    """Set ``shadow [Y, X]`` uint8 to 255 where a part (world axes) that begins below ``lowest`` hides the sun.

    Args:
        sun: ``[3]`` direction towards the sun.
        origin: ``[2]`` world place of cell (0, 0); ``cell`` is its size in metres.
    """
    upper, lower = np.empty((8, 3)), np.empty((8, 3))
    for part in range(len(parts.kind)):
        reach = math.sqrt(parts.half[part, 0] ** 2 + parts.half[part, 1] ** 2 + parts.half[part, 2] ** 2)
        if parts.pattern[part] == PAVEMENT or parts.center[part, 2] - reach > lowest:
            continue
        left, right, top, bottom = _shadow_box(parts.center[part], reach, sun, origin, cell, shadow.shape)
        if left >= right or top >= bottom:
            continue
        if parts.kind[part] == ELLIPSOID:
            _shade_round(parts, part, sun, origin, cell, shadow, (left, right, top, bottom))
            continue
        uppers, lowers = _shadow_bounds(parts, part, sun, origin, cell, upper, lower)
        for row in range(top, bottom):
            begin, end = _row_span(upper[:uppers], lower[:lowers], row, left, right)
            for column in range(begin, end):
                shadow[row, column] = 255


# -- hulls -----------------------------------------------------------------------------------------------------------


@kernel
def _hull_bounds(parts, part, intrinsic, upper, lower):
    """Fill in upper and lower bounds ``a u + b v + c`` of the inverse depth; returns their numbers."""
    uppers, lowers = 0, 1
    lower[0] = 0.0  # the depth is positive
    turn, center = parts.rotation[part], parts.center[part]
    for face in range(6):
        nx, ny, nz, d = hull_plane(face, parts.half[part], parts.lean[part])
        cx = turn[0, 0] * nx + turn[0, 1] * ny + turn[0, 2] * nz
        cy = turn[1, 0] * nx + turn[1, 1] * ny + turn[1, 2] * nz
        cz = turn[2, 0] * nx + turn[2, 1] * ny + turn[2, 2] * nz
        d += cx * center[0] + cy * center[1] + cz * center[2]
        if abs(d) < 1e-9:
            d = 1e-9
        a, b = cx / (intrinsic[0, 0] * d), cy / (intrinsic[1, 1] * d)
        c = cz / d - a * intrinsic[0, 2] - b * intrinsic[1, 2]
        if d < 0:
            upper[uppers, 0], upper[uppers, 1], upper[uppers, 2] = a, b, c
            uppers += 1
        else:
            lower[lowers, 0], lower[lowers, 1], lower[lowers, 2] = a, b, c
            lowers += 1
    return uppers, lowers


@kernel
def _row_span(upper, lower, row, left, right):
    """Return the columns ``[begin, end)`` in which every upper bound is above every lower bound."""
    begin, end = float(left), float(right - 1)
    for i in range(len(upper)):
        for j in range(len(lower)):
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
    return int(math.ceil(begin)), int(math.floor(end)) + 1


@kernel
def _draw_row(upper, lower, row, left, right, part, depth, shown):
    begin, end = _row_span(upper, lower, row, left, right)
    for column in range(begin, end):
        inverse = upper[0, 0] * column + (upper[0, 1] * row + upper[0, 2])
        for i in range(1, len(upper)):
            inverse = min(inverse, upper[i, 0] * column + (upper[i, 1] * row + upper[i, 2]))
        if inverse > depth[column] and inverse < 1 / NEAR:
            depth[column], shown[column] = inverse, part


# -- round parts -----------------------------------------------------------------------------------------------------


@kernel
def _draw_round(parts, part, intrinsic, depth, shown, screen):
    turn, center, half = parts.rotation[part], parts.center[part], parts.half[part]
    ox, oy, oz = _turn_back(turn, -center[0], -center[1], -center[2])
    leaves = parts.pattern[part] == LEAVES
    for row in range(screen[2], screen[3]):
        y = (row - intrinsic[1, 2]) / intrinsic[1, 1]
        for column in range(screen[0], screen[1]):
            x = (column - intrinsic[0, 2]) / intrinsic[0, 0]
            dx, dy, dz = _turn_back(turn, x, y, 1.0)
            distance = distance_to_part(parts.kind[part], ox, oy, oz, dx, dy, dz, half, parts.lean[part])
            if distance < NEAR or 1 / distance <= depth[row, column]:
                continue
            if leaves and _ragged(ox + distance * dx, oy + distance * dy, oz + distance * dz, dx, dy, dz, half):
                continue
            depth[row, column], shown[row, column] = 1 / distance, part


@kernel
def _ragged(x, y, z, dx, dy, dz, half):
    """Return whether a look through the thin rim of a crown passes between its leaves."""
    nx, ny, nz = x / (half[0] * half[0]), y / (half[1] * half[1]), z / (half[2] * half[2])
    length = math.sqrt((nx * nx + ny * ny + nz * nz) * (dx * dx + dy * dy + dz * dz))
    facing = -(nx * dx + ny * dy + nz * dz) / length
    return facing < 0.75 and facing < 0.75 * noise(5 * (x + z) + 100, 5 * (y - z) + 100)


@kernel
def _turn_back(rotation, x, y, z):
    return (
        rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z,
        rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z,
        rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z,
    )


# -- rectangles that hold a part -------------------------------------------------------------------------------------


@kernel
def _screen_box(parts, part, intrinsic, corners, shape):
    """Return columns ``[left, right)`` and rows ``[top, bottom)`` around a part, clipped to what is before the camera."""
    half, turn, center = parts.half[part], parts.rotation[part], parts.center[part]
    before = 0
    for corner in range(8):
        x = half[0] if corner & 1 else -half[0]
        y = half[1] if corner & 2 else -half[1]
        z = half[2] if corner & 4 else -half[2]
        for axis in range(3):
            corners[corner, axis] = center[axis] + turn[axis, 0] * x + turn[axis, 1] * y + turn[axis, 2] * z
        before += corners[corner, 2] > NEAR
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    if before == 0:
        return 0, 0, 0, 0
    for corner in range(8):
        for axis in range(4):  # the corner itself, then where its three edges pass the near plane
            x, y, z = corners[corner, 0], corners[corner, 1], corners[corner, 2]
            if axis < 3:
                other = corners[corner ^ (1 << axis)]
                if (z - NEAR) * (other[2] - NEAR) >= 0:
                    continue
                share = (NEAR - z) / (other[2] - z)
                x, y, z = x + share * (other[0] - x), y + share * (other[1] - y), NEAR
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


@kernel
def _shadow_box(center, reach, sun, origin, cell, shape):
    """Return columns and rows around the shadow of a ball of radius ``reach``."""
    bounds = np.empty(4)
    for axis in range(2):
        slope = sun[axis] / sun[2]
        low, high = max(center[2] - reach, 0.0) * slope, max(center[2] + reach, 0.0) * slope
        bounds[2 * axis] = (center[axis] - reach - max(low, high) - origin[axis]) / cell
        bounds[2 * axis + 1] = (center[axis] + reach - min(low, high) - origin[axis]) / cell
    return (
        int(max(0.0, bounds[0])),
        int(min(float(shape[1]), bounds[1] + 1)),
        int(max(0.0, bounds[2])),
        int(min(float(shape[0]), bounds[3] + 1)),
    )


# -- shadows ---------------------------------------------------------------------------------------------------------


@kernel
def _shadow_bounds(parts, part, sun, origin, cell, upper, lower):
    """Fill in the distances to leaving (upper) and entering (lower) each half space along the sun's direction."""
    uppers, lowers = 0, 1
    lower[0] = 0.0  # what is behind the ground throws no shadow
    turn, center = parts.rotation[part], parts.center[part]
    for face in range(6):
        nx, ny, nz, d = hull_plane(face, parts.half[part], parts.lean[part])
        wx = turn[0, 0] * nx + turn[0, 1] * ny + turn[0, 2] * nz
        wy = turn[1, 0] * nx + turn[1, 1] * ny + turn[1, 2] * nz
        wz = turn[2, 0] * nx + turn[2, 1] * ny + turn[2, 2] * nz
        along = wx * sun[0] + wy * sun[1] + wz * sun[2]
        if abs(along) < 1e-9:
            along = 1e-9
        room = d + wx * (center[0] - origin[0]) + wy * (center[1] - origin[1]) + wz * center[2]
        a, b, c = -wx * cell / along, -wy * cell / along, room / along
        if along > 0:
            upper[uppers, 0], upper[uppers, 1], upper[uppers, 2] = a, b, c
            uppers += 1
        else:
            lower[lowers, 0], lower[lowers, 1], lower[lowers, 2] = a, b, c
            lowers += 1
    return uppers, lowers


@kernel
def _shade_round(parts, part, sun, origin, cell, shadow, window):
    turn, center, half = parts.rotation[part], parts.center[part], parts.half[part]
    dx, dy, dz = _turn_back(turn, sun[0], sun[1], sun[2])
    for row in range(window[2], window[3]):
        for column in range(window[0], window[1]):
            x, y = origin[0] + cell * column - center[0], origin[1] + cell * row - center[1]
            ox, oy, oz = _turn_back(turn, x, y, -center[2])
            if distance_to_part(ELLIPSOID, ox, oy, oz, dx, dy, dz, half, half) < np.inf:
                shadow[row, column] = 255
