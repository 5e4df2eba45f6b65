"""Shape: the solids of one annotated object, with the box around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .parts import Colour, Part, Parts, assemble, bounds

# Annotators draw a box around the returns, whose ranges are noisy: metres added to length, width and height. The box
# stands on the ground.
SLACK = np.array([0.06, 0.06, 0.03])


@dataclass(frozen=True)
class Shape:
    """An object's solids in its own axes; the origin is on the ground under the middle of its box."""

    category: str  # nuScenes category name
    parts: Parts
    size: tuple[float, float, float]  # length, width, height of the annotated box, metres
    keypoints: np.ndarray | None = None  # [14, 3] metres, of people, in the order of `structures/skeleton.py`

    @classmethod
    def fit(cls, category: str, parts: Sequence[Part], keypoints: np.ndarray | None = None) -> Shape:
        """Measure the parts and move the origin under the middle of their box; keypoints move along."""
        solids = assemble(parts)
        lower, upper = bounds(solids)
        middle = np.array([(lower[0] + upper[0]) / 2, (lower[1] + upper[1]) / 2, lower[2]])
        joints = None if keypoints is None else keypoints - middle
        return cls(category, solids.shift(-middle), tuple(upper - lower + SLACK), joints)


def pick(rng: np.random.Generator, options: Sequence, weights: Sequence[float] | None = None):
    """Draw one of the options, with the given relative weights."""
    chances = None if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    return options[rng.choice(len(options), p=chances)]


def tint(rng: np.random.Generator, colour: Colour, amount: float = 0.06) -> Colour:
    """Vary a colour a little."""
    values = np.clip(
        np.asarray(colour) * rng.uniform(1 - 2 * amount, 1 + 2 * amount) + rng.normal(0, amount / 8, 3), 0, 1
    )
    return tuple(values)
