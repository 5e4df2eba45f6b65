"""Moving the world: points, boxes, velocities and cameras follow one 4x4 matrix.

p' = s Q p + t      Q orthogonal (a rotation, or a mirroring), s > 0, t a shift
size' = s size      heading' = direction of Q (cos yaw, sin yaw, 0)      velocity' = s Q velocity
keypoints move as points; where Q is a mirroring, left and right ones change their names
lidar2cam' = lidar2cam M^-1, so a point keeps its pixel
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from ...registry import TRANSFORMS
from ...structures import Sample
from ...structures.sample import move_instances
from .. import point_kernels


def move_world(sample: Sample, matrix: np.ndarray) -> Sample:
    """Return a sample whose points, ground truth and cameras moved together.

    Args:
        sample: its ``points``, ``gt`` and ``cameras`` are moved, where it has them.
        matrix: 4x4 similarity, old LiDAR coordinates -> new ones; it keeps the z axis upright.
    """
    moved = sample.move_lidar(matrix)
    if "points" in sample:
        moved = moved.replace(points=_move_points(sample.points, matrix))
    if "gt" in sample:
        moved = moved.replace(gt=move_instances(sample.gt, matrix))
    return moved


def _move_points(points: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """Move the first three columns of ``[P, F]``; the others stay."""
    return torch.from_numpy(point_kernels.move_points(points.numpy(), np.asarray(matrix, dtype=np.float64)))


class WorldMove(ABC):
    """A random movement; a subclass draws its matrix."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the moved sample."""
        return move_world(sample, self.draw(rng))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a 4x4 matrix, old LiDAR coordinates -> new ones."""


class WorldMoves(WorldMove):
    """Several movements, the first one first, carried out as one."""

    def __init__(self, moves: Sequence[WorldMove]) -> None:
        self.moves = tuple(moves)
        self.__name__ = ", ".join(type(move).__name__ for move in moves)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the product of the movements."""
        matrix = np.eye(4)
        for move in self.moves:
            matrix = move.draw(rng) @ matrix
        return matrix


@TRANSFORMS.register_module()
class RandomFlip(WorldMove):
    """Mirror the world: negate x with probability ``x`` and, independently, y with probability ``y``."""

    def __init__(self, x: float = 0.5, y: float = 0.5) -> None:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"RandomFlip: probabilities lie in [0, 1], got x={x}, y={y}")
        self.probabilities = np.array([x, y])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the mirroring."""
        signs = np.where(rng.random(2) < self.probabilities, -1.0, 1.0)
        return np.diag([*signs, 1.0, 1.0])


@TRANSFORMS.register_module()
class RandomRotate(WorldMove):
    """Turn the world about the z axis by an angle drawn evenly from ``angles`` ``(low, high)``, radians."""

    def __init__(self, angles: Sequence[float] = (-np.pi / 4, np.pi / 4)) -> None:
        self.angles = interval("RandomRotate", "angles", angles)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rotation."""
        angle = rng.uniform(*self.angles)
        matrix = np.eye(4)
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return matrix


@TRANSFORMS.register_module()
class RandomScale(WorldMove):
    """Scale the world about the sensor by a factor drawn evenly from ``factors`` ``(low, high)``."""

    def __init__(self, factors: Sequence[float] = (0.95, 1.05)) -> None:
        self.factors = interval("RandomScale", "factors", factors)
        if self.factors[0] <= 0:
            raise ValueError(f"RandomScale: factors must be positive, got {self.factors}")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the scaling."""
        factor = rng.uniform(*self.factors)
        return np.diag([factor, factor, factor, 1.0])


@TRANSFORMS.register_module()
class RandomTranslate(WorldMove):
    """Shift the world by a normal deviate of ``std`` metres an axis (one number, or three for x, y, z)."""

    def __init__(self, std: float | Sequence[float] = 0.5) -> None:
        self.std = np.broadcast_to(np.asarray(std, dtype=np.float64), (3,))
        if (self.std < 0).any():
            raise ValueError(f"RandomTranslate: std must not be negative, got {std}")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the shift."""
        matrix = np.eye(4)
        matrix[:3, 3] = rng.normal(scale=self.std)
        return matrix


def interval(owner: str, name: str, values: Sequence[float]) -> tuple[float, float]:
    """Return ``(low, high)``; raise ValueError, in the name of ``owner``, unless they are two numbers in this order."""
    if len(values) != 2 or not values[0] <= values[1]:
        raise ValueError(f"{owner}: {name} must be (low, high), got {tuple(values)}")
    return float(values[0]), float(values[1])
