"""Layout: builds the world of one scene from its seed."""

from __future__ import annotations

import numpy as np

from .builder import Builder
from .character import draw_character
from .kerbside import fill_frontage, fill_strips, furnish_pavements
from .motion import time_grid
from .parts import PAVEMENT, Colour, Part, box
from .shapes import pick, tint
from .street import KERB_HEIGHT, Street
from .traffic import fill_cycle_lanes, fill_lanes, fill_pavements, place_ego
from .world import Look, World

VIEW = 110.0  # metres of street that are laid out behind the start and beyond the end of the drive
CROSS_REACH = 85.0  # metres of the crossing street on either side
LAND = 700.0  # metres of ground beyond the kerbs
YARDS: tuple[Colour, ...] = ((0.24, 0.3, 0.12), (0.36, 0.35, 0.33), (0.4, 0.35, 0.26), (0.2, 0.27, 0.1))


def build_world(rng: np.random.Generator, frames: int, interval: float) -> World:
    """Lay out one scene.

    Args:
        rng: its seed decides everything.
        frames: number of key frames.
        interval: seconds between key frames.
    """
    times = time_grid(frames, interval)
    character = draw_character(rng)
    red = rng.random() < 0.4  # whether the main street has to wait
    streets = _streets(rng, (frames - 1) * interval, red=red)
    builder = Builder(rng, times, streets)
    _lay_ground(builder)
    ego, lane = place_ego(builder, streets[0], character, red=red)
    for street in streets:
        fill_frontage(builder, street, character)
        fill_strips(builder, street, character)
        furnish_pavements(builder, street)
    for number, street in enumerate(streets):
        waits = red == (number == 0)
        fill_lanes(builder, street, character, red=waits, skip=lane if number == 0 else None)
        fill_cycle_lanes(builder, street, character, red=waits)
        fill_pavements(builder, street, character, cross=not waits)
    to_global = (*rng.uniform(300.0, 1500.0, size=2), rng.uniform(-np.pi, np.pi))
    junction = "no junction" if len(streets) == 1 else ("red light" if red else "green light")
    description = f"synthetic, {character.name}, {junction}, lanes: {streets[0].lanes} + {streets[0].lanes}"
    return World(times, streets, builder.scenery, builder.actors, ego, draw_look(rng), to_global, description)


def draw_look(rng: np.random.Generator) -> Look:
    """Draw the light of a scene: sunny, hazy or overcast."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.45, 1.1)
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    cloud = pick(rng, (0.1, 0.45, 0.9), (5, 3, 2)) + rng.uniform(0, 0.1)
    warm = np.array([1.0, 0.93, 0.82]) if elevation < 0.65 else np.array([1.0, 0.97, 0.92])
    blue, grey = np.array([0.28, 0.47, 0.78]), np.array([0.66, 0.69, 0.72])
    return Look(
        sun=sun,
        sunlight=warm * (1.35 - 1.15 * cloud),
        skylight=np.array([0.5, 0.55, 0.62]) * (0.75 + 0.55 * cloud),
        zenith=blue + (grey - blue) * cloud,
        horizon=np.array([0.78, 0.83, 0.88]) * rng.uniform(0.93, 1.05),
        cloudiness=float(cloud),
        asphalt=float(rng.uniform(0.2, 0.32)),
    )


def _streets(rng: np.random.Generator, seconds: float, *, red: bool) -> tuple[Street, ...]:
    """Draw the main street and, in two of three scenes, one that crosses it."""
    lanes, width, end = int(pick(rng, (1, 2), (2, 3))), rng.uniform(3.3, 3.7), VIEW + 8.0 * seconds
    main = Street(0.0, 0.0, 0.0, -VIEW, end, lanes, width)
    if rng.random() < 1 / 3:
        return (main,)
    at = rng.uniform(24, 75) if red else rng.uniform(-30, 40 + 5.0 * seconds)
    cross = Street(at, 0.0, np.pi / 2, -CROSS_REACH, CROSS_REACH, int(pick(rng, (1, 2), (3, 1))), width)
    cross_half, main_half = cross.half_width, main.half_width
    return (
        Street(0.0, 0.0, 0.0, -VIEW, end, lanes, width, (at, cross_half)),
        Street(at, 0.0, np.pi / 2, -CROSS_REACH, CROSS_REACH, cross.lanes, width, (0.0, main_half)),
    )


def _lay_ground(builder: Builder) -> None:
    """Lay the raised ground beyond the kerbs: a slab on either side, or one in each corner of the junction."""
    paving, yard = tint(builder.rng, (0.52, 0.5, 0.47)), tint(builder.rng, pick(builder.rng, YARDS))
    main = builder.streets[0]
    spans = [(-LAND, LAND)]
    if len(builder.streets) > 1:
        at, half = main.junction
        spans = [(-LAND, at - half), (at + half, LAND)]
    for side in (1, -1):
        for begin, end in spans:
            slab = _slab(end - begin, paving, yard)
            builder.lay([slab], (begin + end) / 2, side * (main.half_width + LAND / 2))


def _slab(length: float, paving: Colour, yard: Colour) -> Part:
    return box((0, 0, KERB_HEIGHT / 2), (length, LAND, KERB_HEIGHT), paving, pattern=PAVEMENT, colour2=yard)
