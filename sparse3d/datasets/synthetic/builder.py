"""Builder: puts shapes on the ground of a growing world, and only where nothing else is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .motion import sway
from .occupancy import Occupancy
from .parts import Part, Parts, assemble, concatenate, turn
from .shapes import Shape
from .street import Street, ground_height
from .world import Actor


class Builder:
    """A world under construction.

    Args:
        rng: the source of all its chance.
        times: ``[T]`` seconds, the time grid of all courses.
        streets: the streets, which decide where the kerbs are.
    """

    def __init__(self, rng: np.random.Generator, times: np.ndarray, streets: tuple[Street, ...]) -> None:
        self.rng = rng
        self.times = times
        self.streets = streets
        self.occupancy = Occupancy()
        self.actors: list[Actor] = []
        self._scenery: list[Parts] = []

    @property
    def scenery(self) -> Parts:
        """All solids that are not annotated."""
        return concatenate(self._scenery)

    def stand(self, shape: Shape, pose: np.ndarray, *, parked: bool = True, rider: bool = False) -> bool:
        """Put an annotated object somewhere for good; returns False where the ground is taken."""
        x, y, yaw = (float(value) for value in pose)
        if not self.occupancy.take_still(x, y, yaw, *shape.size[:2]):
            return False
        self._add(shape, np.tile([x, y, yaw], (len(self.times), 1)), parked=parked, rider=rider)
        return True

    def stand_inside(self, shape: Shape, pose: np.ndarray) -> None:
        """Put an annotated object on ground that its owner took already, such as a cycle in its rack."""
        self._add(shape, np.tile(np.asarray(pose, dtype=np.float64), (len(self.times), 1)), parked=True)

    def move(self, shape: Shape, poses: np.ndarray, *, rider: bool = False) -> bool:
        """Send an annotated object along ``poses [T, 3]``; returns False if it would ever run into something."""
        if not self.occupancy.take_track(poses, *shape.size[:2]):
            return False
        self._add(shape, poses, parked=False, rider=rider)
        return True

    def decorate(self, parts: Sequence[Part], pose: np.ndarray, footprint: tuple[float, float]) -> bool:
        """Put scenery at ``(x, y, yaw)`` on ``footprint`` (length, width) metres; returns False if that is taken."""
        x, y, yaw = (float(value) for value in pose)
        if not self.occupancy.take_still(x, y, yaw, *footprint):
            return False
        rotation = turn(yaw, 0.0)
        solids = assemble(parts)
        ground = float(ground_height(self.streets, np.array(x), np.array(y)))
        center = solids.center @ rotation.T + np.array([x, y, ground])
        self._scenery.append(solids._replace(center=center, rotation=rotation @ solids.rotation))
        return True

    def lay(self, parts: Sequence[Part], x: float, y: float) -> None:
        """Lay ground at a position; it takes no room and lies on z = 0."""
        self._scenery.append(assemble(parts).shift(np.array([x, y, 0.0])))

    def lane_poses(
        self, street: Street, travelled: np.ndarray, n: float, direction: int, amplitude: float
    ) -> np.ndarray:
        """Return the poses ``[T, 3]`` of something that drives ``travelled [T]`` metres along a lane at ``n``."""
        offset, heading = sway(self.rng, travelled, amplitude)
        turned = 0.0 if direction > 0 else np.pi
        return street.pose(street.travelled(travelled, direction), n + direction * offset, turned + heading)

    def _add(self, shape: Shape, poses: np.ndarray, *, parked: bool, rider: bool = False) -> None:
        heights = ground_height(self.streets, poses[:, 0], poses[:, 1])
        self.actors.append(Actor(shape, poses, heights, parked=parked, rider=rider))
