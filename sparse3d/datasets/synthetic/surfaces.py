"""What a surface looks like: colour for the cameras, reflectivity for the LiDAR (numba kernels).

`shade` returns `(red, green, blue, reflectivity, loss)`: colour in 0..1, reflectivity as the intensity (0..255) of a
return at right angles, loss as the probability that a beam comes back with nothing (dark glass, gaps of a fence).
Metal plates, lamps and sheeting that throw light back (RETRO and the plates on PAINT) are far brighter than the rest,
as on real roads. Patterns are functions of the place on the part, in metres.
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
    PLAIN,
    RETRO,
    WHEEL,
)  # fmt: skip
from .rays import BACK, BOTTOM, FRONT, LEFT, RIGHT, TOP, inlined
from .street import CROSSWALK, CYCLE_WIDTH, PAVEMENT_WIDTH, STOP_LINE, STRIP_WIDTH
from .textures import grain, noise, smooth_noise

GLASS_LOSS = 0.75
FLAG = 0.6  # metres, side of a flagstone
STOREY = 3.2  # metres
MARKING = 0.75  # brightness of road paint
JUNCTION_CLEAR = STOP_LINE + 0.4  # lane markings end here, metres from the junction


@inlined
def fraction(value):
    """Return what is above the next lower integer."""
    return value - math.floor(value)


@inlined
def shade(patterns, half, colours, part, face, x, y, z, fine):
    """Return the surface of a part at a point of it (axes of the part).

    Args:
        patterns, half, colours: of `Parts`.
        face: of `rays.py`.
        fine: metres below which detail is not drawn, so that distant textures do not flicker.
    """
    pattern = patterns[part]
    r, g, b = colours[part, 0], colours[part, 1], colours[part, 2]
    second = colours[part, 3], colours[part, 4], colours[part, 5]
    hx, hy, hz = half[part, 0], half[part, 1], half[part, 2]
    if pattern == PLAIN:
        return r, g, b, 10.0 + 15.0 * (r + g + b), 0.0
    if pattern == PAVEMENT:
        return _pavement(face, x, y, min(hx - abs(x), hy - abs(y)), r, g, b, second, fine)
    if pattern == FACADE:
        return _facade(face, x, y, z, hx, hy, hz, r, g, b, second, fine)
    if pattern == LEAVES:
        return _leaves(x, y, z, r, g, b, fine)
    if pattern == PAINT:
        return _paint(face, x / hx, y / hy, z / hz, r, g, b)
    if pattern == CABIN:
        return _cabin(face, x / hx if face in (LEFT, RIGHT) else y / hy, z / hz, r, g, b)
    if pattern == WHEEL:
        if face in (TOP, BOTTOM) and x * x + y * y < 0.36 * hx * hx:
            return second[0], second[1], second[2], 30.0, 0.0
        return r, g, b, 4.0, 0.15
    if pattern == COACH:
        return _coach(face, x, y / hy, z / hz, hx, r, g, b, second)
    if pattern == CARGO:
        return _cargo(face, x, y, z / hz, hx, hy, r, g, b, second)
    if pattern == BRICK:
        return _brick(x + y, z, r, g, b, fine)
    return _small(pattern, x, y, z, hy, hz, r, g, b, second, fine)


@inlined
def _small(pattern, x, y, z, hy, hz, r, g, b, second, fine):
    """Cones, barriers, fences, sheeting, glass, and roofs (the rest)."""
    if pattern == BANDS:
        if z > 0.1 * hz:
            return second[0], second[1], second[2], 210.0, 0.0
        return r, g, b, 70.0, 0.0
    if pattern == BLOCKS:
        if (math.floor((y / hy + 1) * 2.5) + (z > 0)) & 1 == 0:
            return second[0], second[1], second[2], 90.0, 0.0
        return r, g, b, 55.0, 0.0
    if pattern == FENCE:
        if fine < 0.05 and fraction(x * 7.0) > 0.72:
            return r * 0.45, g * 0.45, b * 0.45, 10.0, 0.6
        return r, g, b, 18.0, 0.55
    if pattern == RETRO:
        return r, g, b, 230.0, 0.0
    if pattern == GLASS:
        return r, g, b, 8.0, GLASS_LOSS
    rows = 0.88 if fine < 0.15 and fraction(z * 4.0) < 0.2 else 1.0
    return r * rows, g * rows, b * rows, 20.0, 0.0


@inlined
def _pavement(face, x, y, edge, r, g, b, yard, fine):
    """Kerbstones, paving, and behind it grass or gravel; ``edge`` is the distance from the kerb."""
    if face != TOP or edge < 0.18:
        light = 0.78 + 0.1 * noise(3 * x, 3 * y)
        return 0.66 * light, 0.65 * light, 0.62 * light, 24.0, 0.0
    if edge < PAVEMENT_WIDTH:
        light = 0.86 + 0.2 * noise(1.3 * x, 1.3 * y)
        if fine < 0.06:
            u, v = x / FLAG, y / FLAG
            light *= 0.94 + 0.12 * grain(u, v)
            if fraction(u) < 0.04 or fraction(v) < 0.04:
                light *= 0.72
        return r * light, g * light, b * light, 18.0, 0.0
    light = 0.7 + 0.5 * smooth_noise(0.6 * x, 0.6 * y)
    if fine < 0.08:
        light *= 0.75 + 0.5 * noise(14 * x, 14 * y)
    return yard[0] * light, yard[1] * light, yard[2] * light, 14.0, 0.0


@inlined
def _leaves(x, y, z, r, g, b, fine):
    u, v = x + 0.7 * z, y - 0.7 * z
    light = 0.8 + 0.4 * noise(2 * u, 2 * v)
    if fine < 0.12:
        light *= 0.55 + 0.9 * noise(9 * u, 9 * v)
    return r * light, g * light, b * light, 22.0, 0.25


@inlined
def _paint(face, u, v, w, r, g, b):
    """Bodywork: headlights and grille in front, red lamps and a bright plate behind, dark sills at the sides."""
    v = abs(v)
    if face == FRONT:
        if v > 0.58 and v < 0.94 and w > 0.0 and w < 0.6:
            return 0.92, 0.92, 0.86, 90.0, 0.0
        if v < 0.52 and w > -0.25 and w < 0.45:
            return 0.05, 0.05, 0.055, 5.0, 0.3
        if w < -0.6:
            return 0.09, 0.09, 0.09, 5.0, 0.1
    elif face == BACK:
        if v > 0.62 and w > 0.25 and w < 0.85:
            return 0.62, 0.03, 0.03, 200.0, 0.0
        if v < 0.3 and w > -0.2 and w < 0.2:
            return 0.88, 0.87, 0.8, 255.0, 0.0
        if w < -0.7:
            return 0.09, 0.09, 0.09, 5.0, 0.1
    elif face != TOP:
        if w < -0.75:
            return 0.07, 0.07, 0.07, 5.0, 0.1
        if abs(fraction((u + 1.0) / 0.72) - 0.5) < 0.011:
            return 0.4 * r, 0.4 * g, 0.4 * b, 15.0, 0.1
    return r, g, b, 14.0 + 13.0 * (r + g + b), 0.02


@inlined
def _cabin(face, u, w, r, g, b):
    """A cabin: glass all round between pillars, paint above and below; ``u`` runs along the face."""
    glazed = face < TOP and w > -0.85 and w < 0.78 and abs(u) < 0.86
    if glazed and (face > BACK and abs(u + 0.05) < 0.04):
        glazed = False
    if glazed:
        sheen = 0.05 + 0.03 * (w + 1)
        return 0.8 * sheen, 0.95 * sheen, 1.1 * sheen, 8.0, GLASS_LOSS
    return r, g, b, 14.0 + 13.0 * (r + g + b), 0.02


@inlined
def _facade(face, x, y, z, hx, hy, hz, r, g, b, glass, fine):
    """A house front: shops below, rows of framed windows above."""
    if face >= TOP:
        return 0.35, 0.34, 0.33, 15.0, 0.0
    along, width = (x + hx, 2 * hx) if face > BACK else (y + hy, 2 * hy)
    up = (z + hz) / STOREY
    across = along * max(math.floor(width / 2.7), 1.0) / width
    u, v = fraction(across), fraction(up)
    light = 0.9 + 0.16 * noise(0.9 * along, 0.9 * up)
    pane = u > 0.2 and u < 0.8 and v > 0.25 and v < 0.85 and 2 * hz - up * STOREY > 0.5
    if up < 1:
        pane = u > 0.08 and u < 0.92 and v < 0.8 and v > 0.06
        light *= 0.8
    elif pane and fine < 0.1 and (abs(u - 0.5) < 0.02 or u < 0.235 or u > 0.765 or v > 0.82):
        return 0.75, 0.74, 0.72, 20.0, 0.0
    if pane:
        tone = 0.6 + 1.0 * grain(across + 31.0 * width, up + width)
        return glass[0] * tone, glass[1] * tone, glass[2] * tone, 9.0, 0.6
    if v < 0.06:
        light *= 0.82
    return r * light, g * light, b * light, 24.0, 0.0


@inlined
def _brick(u, z, r, g, b, fine):
    if fine > 0.06:
        return r, g, b, 24.0, 0.0
    row = math.floor(z / 0.2)
    u = u / 0.5 + 0.5 * (row & 1)
    light = 0.85 + 0.3 * grain(u, z / 0.2)
    if fraction(z / 0.2) < 0.1 or fraction(u) < 0.06:
        light = 1.15
    return r * light, g * light, b * light, 24.0, 0.0


@inlined
def _coach(face, x, v, w, hx, r, g, b, stripe):
    """A bus: a band of windows, one large windscreen in front, lamps and plate behind."""
    v = abs(v)
    glazed = False
    if face in (LEFT, RIGHT):
        glazed = w > 0.0 and w < 0.72 and abs(fraction((x + hx) / 1.5) - 0.5) < 0.45 and abs(x) < hx - 0.3
        if w > -0.55 and w < -0.3:
            return stripe[0], stripe[1], stripe[2], 45.0, 0.0
    elif face == FRONT:
        glazed = w > -0.3 and w < 0.68 and v < 0.9
        if w >= 0.72 and w < 0.9 and v < 0.6:
            return 0.85, 0.6, 0.1, 30.0, 0.0
        if v > 0.6 and w > -0.85 and w < -0.6:
            return 0.92, 0.92, 0.86, 90.0, 0.0
    elif face == BACK:
        glazed = w > 0.25 and w < 0.7 and v < 0.8
        if v > 0.72 and w > -0.7 and w < -0.1:
            return 0.62, 0.03, 0.03, 200.0, 0.0
        if v < 0.25 and w > -0.7 and w < -0.55:
            return 0.88, 0.87, 0.8, 255.0, 0.0
    if glazed:
        return 0.05, 0.06, 0.07, 8.0, GLASS_LOSS
    if w < -0.85:
        return 0.08, 0.08, 0.08, 5.0, 0.1
    return r, g, b, 14.0 + 13.0 * (r + g + b), 0.0


@inlined
def _cargo(face, x, y, w, hx, hy, r, g, b, panel):
    """A load box: a coloured panel at the sides; doors, and reflecting tape at the lower edge behind."""
    if face == BACK:
        if w < -0.8:
            if math.floor((y + hy) / 0.3) & 1 == 0:
                return 0.75, 0.05, 0.04, 255.0, 0.0
            return 0.9, 0.9, 0.88, 255.0, 0.0
        if abs(y) < 0.02 or abs(abs(y) - 0.9 * hy) < 0.02:
            return 0.4 * r, 0.4 * g, 0.4 * b, 15.0, 0.0
    elif face in (LEFT, RIGHT):
        if w < -0.9:
            return 0.3, 0.3, 0.3, 60.0, 0.0
        if abs(x) < 0.62 * hx and abs(w + 0.05) < 0.4:
            return panel[0], panel[1], panel[2], 45.0, 0.0
        if fraction(x / 1.2) < 0.025:
            return 0.8 * r, 0.8 * g, 0.8 * b, 30.0, 0.0
    return r, g, b, 20.0 + 13.0 * (r + g + b), 0.0


@inlined
def shade_road(x, y, streets, asphalt, fine):
    """Return the surface of the road at a place of the world.

    Args:
        x, y: metres, world axes.
        streets: ``[S, 9]``, see `street.street_table`.
        asphalt: brightness of the bare road.
    """
    paint = 0.0
    for row in range(streets.shape[0]):
        axes = streets[row, 0], streets[row, 1], streets[row, 2], streets[row, 3]
        widths = streets[row, 4], streets[row, 5], streets[row, 6]
        paint = max(paint, _marking(x, y, axes, widths, streets[row, 7], streets[row, 8]))
    tone, rough = smooth_noise(0.25 * x, 0.25 * y), grain(x * 33, y * 33)
    if paint > 0.0:
        worn = MARKING * paint * (0.88 + 0.12 * rough)
        return worn, worn, 0.97 * worn, 60.0, 0.0
    light = asphalt * (0.9 + 0.2 * tone)
    if fine < 0.05:
        light *= 0.86 + 0.28 * rough
    if fine < 0.1 and tone > 0.75:
        light *= 0.86  # a patch
    return light, light, light * 1.03, 7.0, 0.0


@inlined
def _marking(x, y, axes, widths, junction, junction_half):
    """Return the brightness (0: none) of the paint of one street; the numbers are of `street.street_table`."""
    half, lanes_width, lane_width = widths
    s = (x - axes[0]) * axes[2] + (y - axes[1]) * axes[3]
    side = (y - axes[1]) * axes[2] - (x - axes[0]) * axes[3]
    n = abs(side)
    to_junction = abs(s - junction) - junction_half  # infinite without a junction
    if n > half or to_junction < 0:
        return 0.0
    if to_junction < JUNCTION_CLEAR:
        if to_junction > CROSSWALK[0] and to_junction < CROSSWALK[1]:
            return 1.0 if fraction(n / 0.9) < 0.55 and n < half - 0.3 else 0.0
        incoming = side * (s - junction) > 0
        return 1.0 if to_junction > STOP_LINE - 0.3 and incoming and n < lanes_width else 0.0
    if abs(n - 0.12) < 0.06 or abs(n - lanes_width) < 0.07:
        return 1.0
    if abs(n - lanes_width - CYCLE_WIDTH) < 0.05:
        return 0.9 if fraction(s / 2.0) < 0.5 else 0.0
    if n < lanes_width - 0.5 and n > 1.0 and fraction(n / lane_width) < 0.03:
        return 1.0 if fraction(s / 9.0) < 0.33 else 0.0
    if n > half - STRIP_WIDTH and fraction(s / 6.2) < 0.016:
        return 0.85
    return 0.0
