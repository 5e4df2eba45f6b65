"""What a surface looks like: colour for the cameras, reflectivity for the LiDAR (numba kernels).

`shade` returns `(red, green, blue, reflectivity, loss)`: colour in 0..1, reflectivity as the intensity (0..255) of a
return at right angles, loss as the probability that a beam comes back with nothing (dark glass, gaps of a fence).
Metal plates, lamps and sheeting that throw light back (RETRO and the plates on PAINT) are far brighter than the rest, as
on real roads. Patterns are functions of the place on the part, in metres.
"""

from __future__ import annotations

import math

from .parts import (
    BANDS,
    BLOCKS,
    BRICK,
    CABIN,
    CARGO,
    COACH,
    FACADE,
    FENCE,
    GLASS,
    LEAVES,
    PAINT,
    PAVEMENT,
    RETRO,
    ROOF,
    WHEEL,
)  # fmt: skip
from .rays import BACK, BOTTOM, FRONT, LEFT, RIGHT, TOP, kernel
from .street import CROSSWALK, CYCLE_WIDTH, PAVEMENT_WIDTH, STOP_LINE, STRIP_WIDTH

GLASS_LOSS = 0.75
MARKING = 0.75  # brightness of road paint
JUNCTION_CLEAR = STOP_LINE + 0.4  # lane markings end here, metres from the junction


@kernel
def hash01(i, j):
    """Return a number in [0, 1) that depends on two integers only (integer mixing after Jarzynski and Olano, JCGT 2020)."""
    value = (i * 1664525 + j * 22695477 + 1013904223) & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return ((value ^ (value >> 16)) & 0xFFFFFF) / 16777216.0


@kernel
def noise(x, y):
    """Return smooth noise in [0, 1) with features of one unit."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    i, j = int(i), int(j)
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    low = hash01(i, j) * (1 - u) + hash01(i + 1, j) * u
    high = hash01(i, j + 1) * (1 - u) + hash01(i + 1, j + 1) * u
    return low * (1 - v) + high * v


@kernel
def shade(pattern, face, x, y, z, half, colours, fine):
    """Return the surface of a part at a point of it (axes of the part).

    Args:
        pattern, face: of `parts.py` and `rays.py`.
        half: ``[3]``; colours: ``[6]``.
        fine: metres below which detail is not drawn, so that distant textures do not flicker.
    """
    r, g, b = colours[0], colours[1], colours[2]
    if pattern == PAVEMENT:
        return _pavement(face, x, y, half, colours, fine)
    if pattern == PAINT:
        return _paint(face, x, y, z, half, r, g, b)
    if pattern == CABIN:
        return _cabin(face, x, y, z, half, r, g, b)
    if pattern == WHEEL:
        if face in (TOP, BOTTOM) and x * x + y * y < 0.36 * half[0] * half[0]:
            return colours[3], colours[4], colours[5], 30.0, 0.0
        return r, g, b, 4.0, 0.15
    if pattern == FACADE:
        return _facade(face, x, y, z, half, colours, fine)
    if pattern == LEAVES:
        light = 0.55 + 0.9 * noise(9 * (x + z), 9 * (y - z)) if fine < 0.12 else 1.0
        patch = 0.8 + 0.4 * noise(2 * (x + 0.7 * z), 2 * (y - 0.7 * z))
        return r * light * patch, g * light * patch, b * light * patch, 22.0, 0.25
    if pattern == BANDS:
        if z > 0.1 * half[2]:
            return colours[3], colours[4], colours[5], 210.0, 0.0
        return r, g, b, 70.0, 0.0
    if pattern == BLOCKS:
        if (math.floor((y + half[1]) / (half[1] * 0.4)) + (z > 0)) % 2 == 0:
            return colours[3], colours[4], colours[5], 90.0, 0.0
        return r, g, b, 55.0, 0.0
    if pattern == BRICK:
        return _brick(x, y, z, r, g, b, fine)
    if pattern == FENCE:
        if fine < 0.05 and (x * 7.0) % 1.0 > 0.72:
            return r * 0.45, g * 0.45, b * 0.45, 10.0, 0.6
        return r, g, b, 18.0, 0.55
    if pattern == COACH:
        return _coach(face, x, y, z, half, colours)
    if pattern == CARGO:
        return _cargo(face, x, y, z, half, colours)
    if pattern == RETRO:
        return r, g, b, 230.0, 0.0
    if pattern == GLASS:
        return r, g, b, 8.0, GLASS_LOSS
    if pattern == ROOF:
        rows = 0.88 if fine < 0.15 and (z * 4.0) % 1.0 < 0.2 else 1.0
        return r * rows, g * rows, b * rows, 20.0, 0.0
    return r, g, b, 10.0 + 45.0 * (r + g + b) / 3, 0.0


@kernel
def _pavement(face, x, y, half, colours, fine):
    edge = min(half[0] - abs(x), half[1] - abs(y))  # metres from the kerb
    if face != TOP or edge < 0.18:
        light = 0.78 + 0.1 * noise(3 * x, 3 * y)
        return 0.66 * light, 0.65 * light, 0.62 * light, 24.0, 0.0
    if edge < PAVEMENT_WIDTH:
        light = 0.86 + 0.2 * noise(1.3 * x, 1.3 * y)
        if fine < 0.06:
            light *= 0.94 + 0.12 * hash01(int(math.floor(x / 0.6)), int(math.floor(y / 0.6)))
            if (x / 0.6) % 1.0 < 0.04 or (y / 0.6) % 1.0 < 0.04:
                light *= 0.72
        return colours[0] * light, colours[1] * light, colours[2] * light, 18.0, 0.0
    light = 0.7 + 0.5 * noise(0.6 * x, 0.6 * y)
    if fine < 0.08:
        light *= 0.75 + 0.5 * noise(14 * x, 14 * y)
    return colours[3] * light, colours[4] * light, colours[5] * light, 14.0, 0.0


@kernel
def _paint(face, x, y, z, half, r, g, b):
    """Bodywork: headlights and grille in front, red lamps and a bright plate behind, dark sills at the sides."""
    u, v = y / half[1], z / half[2]
    if face == FRONT:
        if abs(u) > 0.58 and abs(u) < 0.94 and v > 0.0 and v < 0.6:
            return 0.92, 0.92, 0.86, 90.0, 0.0
        if abs(u) < 0.52 and v > -0.25 and v < 0.45:
            return 0.05, 0.05, 0.055, 5.0, 0.3
        if v < -0.6:
            return 0.09, 0.09, 0.09, 5.0, 0.1
    elif face == BACK:
        if abs(u) > 0.62 and v > 0.25 and v < 0.85:
            return 0.62, 0.03, 0.03, 200.0, 0.0
        if abs(u) < 0.3 and v > -0.2 and v < 0.2:
            return 0.88, 0.87, 0.8, 255.0, 0.0
        if v < -0.7:
            return 0.09, 0.09, 0.09, 5.0, 0.1
    elif face in (LEFT, RIGHT):
        if v < -0.75:
            return 0.07, 0.07, 0.07, 5.0, 0.1
        if abs(((x / half[0]) + 1.0) % 0.72 - 0.36) < 0.008:
            return 0.4 * r, 0.4 * g, 0.4 * b, 15.0, 0.1
    return r, g, b, 14.0 + 40.0 * (r + g + b) / 3, 0.02


@kernel
def _cabin(face, x, y, z, half, r, g, b):
    """A cabin: glass all round between pillars, paint above and below."""
    u = x / half[0] if face in (LEFT, RIGHT) else y / half[1]
    v = z / half[2]
    glazed = face not in (TOP, BOTTOM) and v > -0.85 and v < 0.78 and abs(u) < 0.86
    if glazed and face in (LEFT, RIGHT) and abs(u + 0.05) < 0.04:
        glazed = False
    if glazed:
        sheen = 0.07 + 0.1 * (v + 1)
        return 0.8 * sheen, 0.95 * sheen, 1.1 * sheen, 8.0, GLASS_LOSS
    return r, g, b, 14.0 + 40.0 * (r + g + b) / 3, 0.02


@kernel
def _facade(face, x, y, z, half, colours, fine):
    r, g, b = colours[0], colours[1], colours[2]
    if face in (TOP, BOTTOM):
        return 0.35, 0.34, 0.33, 15.0, 0.0
    along = x + half[0] if face in (LEFT, RIGHT) else y + half[1]
    width = 2 * half[0] if face in (LEFT, RIGHT) else 2 * half[1]
    up = z + half[2]
    pitch = width / max(math.floor(width / 2.7), 1.0)
    column, row = math.floor(along / pitch), math.floor(up / 3.2)
    u, v = along / pitch - column, up / 3.2 - row
    light = 0.9 + 0.16 * noise(0.9 * along, 0.9 * up)
    if row == 0:
        if u > 0.08 and u < 0.92 and v < 0.8 and v > 0.06:
            tone = 0.6 + 0.9 * hash01(int(column), int(width * 100))
            return colours[3] * tone, colours[4] * tone, colours[5] * tone, 9.0, 0.5
        return 0.8 * r * light, 0.8 * g * light, 0.8 * b * light, 22.0, 0.0
    if u > 0.2 and u < 0.8 and v > 0.25 and v < 0.85 and 2 * half[2] - up > 0.5:
        tone = 0.7 + 1.0 * hash01(int(column) + 977, int(row) + int(width * 100))
        if fine < 0.1 and (abs(u - 0.5) < 0.02 or u < 0.235 or u > 0.765 or v > 0.82):
            return 0.75, 0.74, 0.72, 20.0, 0.0
        return colours[3] * tone, colours[4] * tone, colours[5] * tone, 9.0, 0.6
    if v < 0.06:
        light *= 0.82
    return r * light, g * light, b * light, 24.0, 0.0


@kernel
def _brick(x, y, z, r, g, b, fine):
    if fine > 0.06:
        return r, g, b, 24.0, 0.0
    row = math.floor(z / 0.2)
    u = (x + y) / 0.5 + 0.5 * (row % 2)
    light = 0.85 + 0.3 * hash01(int(row), int(math.floor(u)))
    if z / 0.2 - row < 0.1 or u - math.floor(u) < 0.06:
        light = 1.15
    return r * light, g * light, b * light, 24.0, 0.0


@kernel
def _coach(face, x, y, z, half, colours):
    """A bus: a band of windows, one large windscreen in front, lamps and plate behind."""
    r, g, b = colours[0], colours[1], colours[2]
    v = z / half[2]
    if face in (LEFT, RIGHT):
        if v > 0.0 and v < 0.72 and abs((x + half[0]) % 1.5 - 0.75) < 0.68 and abs(x) < half[0] - 0.3:
            return 0.07, 0.085, 0.1, 8.0, GLASS_LOSS
        if v > -0.55 and v < -0.3:
            return colours[3], colours[4], colours[5], 45.0, 0.0
    elif face == FRONT:
        if v > -0.3 and v < 0.68 and abs(y) < 0.9 * half[1]:
            return 0.07, 0.085, 0.1, 8.0, GLASS_LOSS
        if v >= 0.72 and v < 0.9 and abs(y) < 0.6 * half[1]:
            return 0.85, 0.6, 0.1, 30.0, 0.0
        if abs(y) > 0.6 * half[1] and v > -0.85 and v < -0.6:
            return 0.92, 0.92, 0.86, 90.0, 0.0
    elif face == BACK:
        if v > 0.25 and v < 0.7 and abs(y) < 0.8 * half[1]:
            return 0.07, 0.085, 0.1, 8.0, GLASS_LOSS
        if abs(y) > 0.72 * half[1] and v > -0.7 and v < -0.1:
            return 0.62, 0.03, 0.03, 200.0, 0.0
        if abs(y) < 0.25 * half[1] and v > -0.7 and v < -0.55:
            return 0.88, 0.87, 0.8, 255.0, 0.0
    if v < -0.85:
        return 0.08, 0.08, 0.08, 5.0, 0.1
    return r, g, b, 14.0 + 40.0 * (r + g + b) / 3, 0.0


@kernel
def _cargo(face, x, y, z, half, colours):
    """A load box: a coloured panel at the sides; doors, red lamps and reflecting tape behind."""
    r, g, b = colours[0], colours[1], colours[2]
    v = z / half[2]
    if face == BACK:
        if v < -0.8:
            if math.floor((y + half[1]) / 0.3) % 2 == 0:
                return 0.75, 0.05, 0.04, 255.0, 0.0
            return 0.9, 0.9, 0.88, 255.0, 0.0
        if abs(y) < 0.02 or abs(abs(y) - 0.9 * half[1]) < 0.02:
            return 0.4 * r, 0.4 * g, 0.4 * b, 15.0, 0.0
    elif face in (LEFT, RIGHT):
        if v < -0.9:
            return 0.3, 0.3, 0.3, 60.0, 0.0
        if abs(x) < 0.62 * half[0] and abs(v + 0.05) < 0.4:
            return colours[3], colours[4], colours[5], 45.0, 0.0
        if x % 1.2 < 0.03:
            return 0.8 * r, 0.8 * g, 0.8 * b, 30.0, 0.0
    return r, g, b, 20.0 + 40.0 * (r + g + b) / 3, 0.0


@kernel
def shade_road(x, y, streets, asphalt, fine):
    """Return the surface of the road at a place of the world.

    Args:
        x, y: metres, world axes.
        streets: ``[S, 9]``, see `street.street_table`.
        asphalt: brightness of the bare road.
    """
    light = asphalt * (0.9 + 0.2 * noise(0.35 * x, 0.35 * y))
    if fine < 0.05:
        light *= 0.86 + 0.28 * hash01(int(math.floor(x * 33)), int(math.floor(y * 33)))
    paint = 0.0
    for row in range(streets.shape[0]):
        paint = max(paint, _marking(x, y, streets[row]))
    if paint > 0.0:
        worn = paint * (0.85 + 0.15 * noise(6 * x, 6 * y))
        return MARKING * worn, MARKING * worn, (MARKING - 0.02) * worn, 60.0, 0.0
    if fine < 0.1 and noise(0.21 * x + 40, 0.21 * y) > 0.72:
        light *= 0.86  # patches
    return light, light, light * 1.03, 7.0, 0.0


@kernel
def _marking(x, y, street):
    """Return the brightness (0: none) of the paint of one street."""
    cos, sin = street[2], street[3]
    s = (x - street[0]) * cos + (y - street[1]) * sin
    n = abs((y - street[1]) * cos - (x - street[0]) * sin)
    half, lanes_width, lane_width = street[4], street[5], street[6]
    if n > half:
        return 0.0
    to_junction = abs(s - street[7]) - street[8]  # infinite without a junction
    if to_junction < 0:
        return 0.0
    if to_junction > CROSSWALK[0] and to_junction < CROSSWALK[1]:
        return 1.0 if (n / 0.9) % 1.0 < 0.55 and n < half - 0.3 else 0.0
    if to_junction < JUNCTION_CLEAR:
        incoming = ((y - street[1]) * cos - (x - street[0]) * sin) * (s - street[7]) > 0
        return 1.0 if to_junction > STOP_LINE - 0.3 and incoming and n < lanes_width else 0.0
    if abs(n - 0.12) < 0.06 or abs(n - lanes_width) < 0.07:
        return 1.0
    if abs(n - lanes_width - CYCLE_WIDTH) < 0.05:
        return 0.9 if s % 2.0 < 1.0 else 0.0
    if n < lanes_width - 0.5 and abs(n % lane_width) < 0.07 and n > 1.0:
        return 1.0 if s % 9.0 < 3.0 else 0.0
    if n > half - STRIP_WIDTH and s % 6.2 < 0.1:
        return 0.85
    return 0.0
