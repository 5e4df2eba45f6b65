"""Character: what kind of neighbourhood a scene shows, as densities of what stands and moves there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import pick


@dataclass(frozen=True)
class Character:
    """Densities of one scene; shares are relative weights."""

    name: str
    spacing: float  # metres between vehicles of a lane, mean of an exponential distribution
    mix: tuple[float, ...]  # car, truck, tractor with trailer, bus, motorcycle in the lanes
    cyclists: float  # per 100 m and direction
    walkers: float  # groups per 100 m and pavement
    strip: tuple[float, ...]  # cars, heavy vehicles, cycles, site, cones, nothing along the kerb
    frontage: tuple[float, ...]  # tower, house, trees, wall, hedge, fence, yard behind the pavement
    gap: float  # metres between neighbours of the frontage
    storey_range: tuple[float, float]  # heights of buildings in metres


CHARACTERS = (
    Character("centre", 26, (7, 1.0, 0.3, 1.2, 0.8), 1.0, 4.0, (4, 1.6, 1.2, 1.3, 0.8, 0.8),
              (8, 0, 1, 0.5, 0.5, 0.3, 1.0), 2.0, (10, 32)),
    Character("suburb", 40, (7, 0.8, 0.1, 0.8, 0.6), 1.2, 2.2, (5, 1.0, 0.8, 0.8, 0.6, 1.6),
              (0.6, 6, 2.5, 1, 2, 1, 0.6), 3.5, (6, 11)),
    Character("industry", 34, (5, 2.2, 1.4, 0.7, 0.4), 0.7, 1.3, (2.5, 3.2, 0.6, 1.8, 1.0, 1.0),
              (3.5, 0, 1, 2, 0.4, 2.5, 3.0), 5.0, (5, 10)),
    Character("park", 36, (7, 0.8, 0.2, 1.0, 0.8), 1.6, 3.2, (3.5, 1.2, 1.2, 1.0, 0.8, 2.0),
              (1.0, 0.8, 7, 0.5, 3, 2, 0.6), 2.5, (8, 18)),
)  # fmt: skip


def draw_character(rng: np.random.Generator) -> Character:
    """Draw the character of a scene."""
    return pick(rng, CHARACTERS, (3, 3, 2, 2))
