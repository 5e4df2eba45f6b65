"""What stands beside the road and is not annotated: buildings, trees, lamps, signs, walls and fences.

Every function returns parts around an origin on the ground; x runs along the street, +y away from it.
"""

from __future__ import annotations

import numpy as np

from .parts import (
    BLACK,
    BRICK,
    FACADE,
    FENCE,
    GLASS,
    GREY,
    LEAVES,
    RETRO,
    ROOF,
    WHITE,
    Colour,
    Part,
    ball,
    box,
    pole,
)  # fmt: skip
from .shapes import pick, tint

FACADES: tuple[Colour, ...] = (
    (0.62, 0.57, 0.5), (0.5, 0.3, 0.24), (0.7, 0.69, 0.66), (0.42, 0.44, 0.47), (0.58, 0.5, 0.36), (0.33, 0.36, 0.4),
    (0.66, 0.6, 0.56),
)  # fmt: skip
GREENS: tuple[Colour, ...] = ((0.13, 0.24, 0.07), (0.2, 0.3, 0.09), (0.1, 0.2, 0.09), (0.28, 0.31, 0.1))
PANE: Colour = (0.16, 0.2, 0.25)
BARK: Colour = (0.24, 0.18, 0.13)
BILLBOARDS: tuple[Colour, ...] = ((0.1, 0.25, 0.5), (0.6, 0.1, 0.1), (0.85, 0.85, 0.8), (0.1, 0.4, 0.2))


def building(rng: np.random.Generator, width: float, depth: float, height: float) -> list[Part]:
    """Build a house with windows, a plinth and things on its roof; ``depth`` runs away from the street."""
    wall = tint(rng, pick(rng, FACADES))
    glass = tint(rng, PANE, 0.15)
    parts = [
        box((0, 0, height / 2), (width, depth, height), wall, pattern=FACADE, colour2=glass),
        box((0, 0, height + 0.25), (width + 0.3, depth + 0.3, 0.5), tint(rng, GREY)),
    ]
    if height > 8:
        parts.append(box((rng.uniform(-0.2, 0.2) * width, 0, height + 1.5), (3.0, 3.0, 2.4), tint(rng, GREY)))
    if rng.random() < 0.5:
        parts.append(box((0, -depth / 2 - 0.7, 3.2), (width * 0.6, 1.4, 0.15), tint(rng, pick(rng, BILLBOARDS))))
    if rng.random() < 0.4:
        parts.append(box((0, -depth / 2 - 0.08, 4.1), (width * 0.4, 0.16, 0.9), tint(rng, pick(rng, BILLBOARDS))))
    return parts


def house(rng: np.random.Generator, width: float, depth: float) -> list[Part]:
    """Build a low house under a pitched roof."""
    height = rng.uniform(3.2, 6.4)
    wall = tint(rng, pick(rng, FACADES))
    rise = rng.uniform(1.6, 2.6)
    return [
        box((0, 0, height / 2), (width, depth, height), wall, pattern=FACADE, colour2=tint(rng, PANE, 0.15)),
        box((0, 0, height + rise / 2), (width + 0.5, depth + 0.8, rise), tint(rng, (0.4, 0.2, 0.15)), pattern=ROOF,
            lean=(0.4, 0.4, depth / 2)),
        box((width * 0.25, depth * 0.1, height + rise), (0.6, 0.6, 1.4), tint(rng, (0.45, 0.25, 0.2)), pattern=BRICK),
    ]  # fmt: skip


def tree(rng: np.random.Generator) -> list[Part]:
    """Build a tree of overlapping crowns."""
    trunk, crown = rng.uniform(2.2, 3.4), rng.uniform(2.6, 4.6)
    green = tint(rng, pick(rng, GREENS), 0.1)
    parts = [pole((0, 0, trunk / 2 + 0.4), rng.uniform(0.1, 0.2), trunk + 0.8, BARK)]
    for angle in rng.uniform(0, 2 * np.pi) + np.arange(3) * 2.1:
        size = crown * rng.uniform(0.6, 0.85)
        offset = crown * 0.22
        center = (offset * np.cos(angle), offset * np.sin(angle), trunk + size * rng.uniform(0.4, 0.6))
        parts.append(ball(center, (size, size, size * rng.uniform(0.75, 1.0)), tint(rng, green, 0.08), pattern=LEAVES))
    return parts


def conifer(rng: np.random.Generator) -> list[Part]:
    """Build a narrow, tall tree."""
    height, width = rng.uniform(4.5, 9.0), rng.uniform(1.5, 2.4)
    green = tint(rng, (0.09, 0.19, 0.09), 0.1)
    return [
        pole((0, 0, 0.5), 0.12, 1.0, BARK),
        ball((0, 0, height / 2 + 0.5), (width, width, height), green, pattern=LEAVES),
    ]


def bush(rng: np.random.Generator) -> list[Part]:
    """Build a bush."""
    size = rng.uniform((0.8, 0.8, 0.7), (2.2, 1.4, 1.5))
    return [ball((0, 0, size[2] * 0.4), tuple(size), tint(rng, pick(rng, GREENS), 0.1), pattern=LEAVES)]


def hedge(rng: np.random.Generator, length: float) -> list[Part]:
    """Build a cut hedge."""
    height = rng.uniform(0.8, 1.7)
    return [
        box(
            (0, 0, height / 2),
            (length, 0.8, height),
            tint(rng, pick(rng, GREENS), 0.1),
            pattern=LEAVES,
            lean=(0.05, 0.05, 0.08),
        )
    ]


def wall(rng: np.random.Generator, length: float) -> list[Part]:
    """Build a brick wall."""
    height = rng.uniform(1.2, 2.6)
    return [
        box((0, 0, height / 2), (length, 0.3, height), tint(rng, pick(rng, FACADES)), pattern=BRICK),
        box((0, 0, height + 0.04), (length, 0.38, 0.08), tint(rng, GREY)),
    ]


def fence(rng: np.random.Generator, length: float) -> list[Part]:
    """Build a fence of slats, which beams and looks pass in part."""
    height = rng.uniform(1.1, 2.0)
    posts = np.linspace(-length / 2, length / 2, max(2, round(length / 3)))
    return [
        box((0, 0, height / 2), (length, 0.06, height), tint(rng, (0.35, 0.3, 0.25)), pattern=FENCE),
        *(box((x, 0, height / 2 + 0.05), (0.1, 0.1, height + 0.1), GREY) for x in posts),
    ]


def street_lamp(rng: np.random.Generator) -> list[Part]:
    """Build a lamp whose arm reaches over the road."""
    height, reach = rng.uniform(6.5, 9.0), rng.uniform(1.2, 2.4)
    steel = tint(rng, (0.38, 0.4, 0.4))
    return [
        pole((0, 0, height / 2), 0.09, height, steel),
        box((0, -reach / 2, height), (0.09, reach, 0.09), steel),
        box((0, -reach, height - 0.05), (0.3, 0.7, 0.16), WHITE),
    ]


def traffic_light() -> list[Part]:
    """Build a signal post with its three lamps."""
    lamps = ((0.75, 0.06, 0.05), (0.7, 0.5, 0.05), (0.05, 0.5, 0.2))
    return [
        pole((0, 0, 1.9), 0.08, 3.8, GREY),
        box((0, -0.15, 3.2), (0.34, 0.3, 1.05), BLACK),
        *(ball((0, -0.3, 3.52 - 0.32 * row), (0.2, 0.12, 0.2), lamp, pattern=RETRO) for row, lamp in enumerate(lamps)),
        *(ball((side * 0.18, -0.15, 3.52 - 0.32 * row), (0.1, 0.2, 0.2), lamp, pattern=RETRO)
          for side in (-1, 1) for row, lamp in enumerate(lamps)),
    ]  # fmt: skip


def road_sign(rng: np.random.Generator) -> list[Part]:
    """Build a sign that faces along the street; such sheets return light strongly."""
    colour = pick(rng, ((0.75, 0.08, 0.08), (0.1, 0.25, 0.6), (0.85, 0.65, 0.05), (0.8, 0.8, 0.8)))
    size = rng.uniform(0.55, 0.85)
    return [pole((0, 0, 1.25), 0.04, 2.5, GREY), box((0, 0, 2.3), (0.04, size, size), colour, pattern=RETRO)]


def bin_or_box(rng: np.random.Generator) -> list[Part]:
    """Build a litter bin, a hydrant, a letter box or a switch cabinet."""
    kind = rng.integers(4)
    if kind == 0:
        return [pole((0, 0, 0.5), 0.28, 1.0, tint(rng, (0.15, 0.3, 0.2)))]
    if kind == 1:
        return [pole((0, 0, 0.35), 0.14, 0.7, (0.7, 0.1, 0.06)), ball((0, 0, 0.7), (0.3, 0.3, 0.25), (0.7, 0.1, 0.06))]
    if kind == 2:
        return [box((0, 0, 0.65), (0.5, 0.45, 1.3), tint(rng, (0.1, 0.2, 0.45)))]
    return [box((0, 0, 0.7), (1.1, 0.45, 1.4), tint(rng, (0.45, 0.48, 0.45)))]


def bus_shelter(rng: np.random.Generator) -> list[Part]:
    """Build a shelter: glass back, roof, bench."""
    steel = tint(rng, GREY)
    return [
        box((0, 0.7, 1.25), (4.0, 0.06, 2.1), (0.3, 0.36, 0.38), pattern=GLASS),
        box((0, 0.1, 2.45), (4.4, 1.7, 0.12), steel),
        *(box((x, 0.7, 1.2), (0.1, 0.1, 2.4), steel) for x in (-2.0, 2.0)),
        box((0, 0.4, 0.5), (2.4, 0.4, 0.1), (0.4, 0.28, 0.16)),
        box((1.96, 0.1, 1.3), (0.12, 1.1, 1.8), tint(rng, pick(rng, BILLBOARDS))),
    ]


def gantry(span: float) -> list[Part]:
    """Build a sign bridge across a street ``span`` metres wide; the street runs along x."""
    return [
        *(pole((0, side * span / 2, 3.4), 0.18, 6.8, GREY) for side in (-1, 1)),
        box((0, 0, 6.6), (0.5, span, 0.5), (0.45, 0.47, 0.48)),
        *(box((-0.3, side * span / 5, 6.4), (0.1, 3.6, 1.8), (0.05, 0.3, 0.2), pattern=RETRO) for side in (-1, 1)),
    ]
