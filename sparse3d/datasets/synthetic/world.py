"""World: everything that exists in one scene, and where it is at any time.

The world's axes: x along the main street, z up, the road at z = 0. `to_global` turns and moves them, so that scenes lie
anywhere on the map, as recorded ones do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .parts import Parts, concatenate
from .shapes import Shape
from .street import Street


@dataclass(frozen=True)
class Actor:
    """One annotated object."""

    shape: Shape
    poses: np.ndarray  # [T, 3], x, y, yaw on the world's time grid
    heights: np.ndarray  # [T], ground under it, metres
    parked: bool = False  # stands without a driver
    rider: bool = False


@dataclass(frozen=True)
class Look:
    """Light and colours of a scene."""

    sun: np.ndarray  # [3], unit vector towards the sun
    sunlight: np.ndarray  # [3], colour of direct light
    skylight: np.ndarray  # [3], colour of diffuse light
    zenith: np.ndarray  # [3], colour of the sky above
    horizon: np.ndarray  # [3], colour of sky and haze at the horizon
    cloudiness: float  # 0..1
    asphalt: float  # brightness of the road


class Snapshot:
    """All solids at one instant, moving in straight lines around it.

    Args:
        parts: solids in the world's axes.
        velocities: ``[P, 3]`` in m/s.
    """

    def __init__(self, parts: Parts, velocities: np.ndarray) -> None:
        self.parts = parts
        self.velocities = velocities

    def near(self, x: float, y: float, radius: float) -> Snapshot:
        """Return the solids that reach into a circle of ``radius`` metres."""
        reach = np.linalg.norm(self.parts.half, axis=1) + radius
        keep = np.hypot(self.parts.center[:, 0] - x, self.parts.center[:, 1] - y) < reach
        return Snapshot(self.parts.select(keep), self.velocities[keep])


class World:
    """One scene.

    Args:
        times: ``[T]`` seconds, evenly spaced; poses in between are interpolated linearly.
        streets: one, or two that cross.
        scenery: solids that neither move nor are annotated.
        actors: annotated objects.
        ego: ``[T, 3]`` poses of the recording vehicle.
        look: light and colours.
        to_global: ``(x, y, yaw)`` of the world's origin on the map.
        description: a few words about the scene.
    """

    def __init__(
        self,
        times: np.ndarray,
        streets: tuple[Street, ...],
        scenery: Parts,
        actors: list[Actor],
        ego: np.ndarray,
        look: Look,
        to_global: tuple[float, float, float],
        description: str,
    ) -> None:
        self.times = times
        self.streets = streets
        self.scenery = scenery
        self.actors = actors
        self.ego = ego
        self.look = look
        self.to_global = to_global
        self.description = description
        self._poses = np.stack([actor.poses for actor in actors], axis=1)  # [T, N, 3]
        self._heights = np.stack([actor.heights for actor in actors], axis=1)  # [T, N]
        self._solids = concatenate([actor.shape.parts for actor in actors])
        counts = [len(actor.shape.parts.kind) for actor in actors]
        self._solids = self._solids._replace(owner=np.repeat(np.arange(len(actors)), counts))

    def ego_pose(self, time: float) -> np.ndarray:
        """Return ``(x, y, yaw)`` of the recording vehicle."""
        return _interpolate(self.times, self.ego, time)[0]

    def ego_velocity(self, time: float) -> np.ndarray:
        """Return ``(vx, vy, yaw rate)`` of the recording vehicle."""
        return _interpolate(self.times, self.ego, time)[1]

    def actor_poses(
        self,
        when: float | np.ndarray,  # scalar or [N], seconds
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return poses ``[N, 4]`` ``(x, y, z of the ground, yaw)`` and velocities ``[N, 3]`` ``(vx, vy, yaw rate)``."""
        moments = np.broadcast_to(np.asarray(when, dtype=np.float64), (len(self.actors),))
        index, share = _locate(self.times, moments)
        row = np.arange(len(self.actors))
        before, after = self._poses[index, row], self._poses[index + 1, row]
        planar = before + share[:, None] * (after - before)
        height = self._heights[index, row]
        poses = np.stack([planar[:, 0], planar[:, 1], height, planar[:, 2]], axis=1)
        return poses, (after - before) / (self.times[1] - self.times[0])

    def snapshot(self, time: float) -> Snapshot:
        """Return scenery and actors at a time in seconds."""
        poses, velocities = self.actor_poses(time)
        owner = self._solids.owner
        cos, sin = np.cos(poses[owner, 3]), np.sin(poses[owner, 3])
        turn = np.zeros((len(owner), 3, 3))
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = cos, -sin, sin, cos, 1.0
        moved = self._solids._replace(
            center=np.einsum("pij,pj->pi", turn, self._solids.center) + poses[owner, :3],
            rotation=turn @ self._solids.rotation,
        )
        speeds = np.zeros((len(owner) + len(self.scenery.kind), 3))
        speeds[: len(owner), :2] = velocities[owner, :2]
        return Snapshot(concatenate([moved, self.scenery]), speeds)


def _locate(times: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    phase = (moments - times[0]) / (times[1] - times[0])
    if phase.min() < 0 or phase.max() > len(times) - 1:
        raise ValueError(
            f"World: times must lie in [{times[0]}, {times[-1]}] s, got {moments.min()} to {moments.max()}"
        )
    index = np.minimum(phase.astype(np.int64), len(times) - 2)
    return index, phase - index


def _interpolate(times: np.ndarray, poses: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
    index, share = _locate(times, np.array([time]))
    before, after = poses[index[0]], poses[index[0] + 1]
    return before + share[0] * (after - before), (after - before) / (times[1] - times[0])
