"""Annotations of one key frame: boxes, attributes, visibility and the points inside.

A box stands where its object was when the LiDAR's beam passed it, up to 50 ms before the key frame's stamp, because
that is where annotators see the points (and where the cameras, which fire as the beam passes them, see the object).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lidar import Scan, beam_delay
from .rays import kernel
from .rig import HDL32E, LIDAR, pose_matrix
from .world import Actor, World

ANNOTATED_RANGE = 60.0  # metres from the recording car
MOVING_SPEED = 0.25  # m/s; slower vehicles are stopped
VISIBLE_SHARES = (0.4, 0.6, 0.8)  # upper bounds of visibility levels 1, 2 and 3


@dataclass(frozen=True)
class Annotation:
    """One object in one key frame, in the world's axes."""

    actor: int
    center: np.ndarray  # [3], metres
    size: tuple[float, float, float]  # length, width, height
    yaw: float
    attribute: str  # "" for none
    visibility: str  # token "1" to "4"
    points: int


def annotate(world: World, stamp: float, scan: Scan) -> list[Annotation]:
    """Annotate every object within `ANNOTATED_RANGE` at a key frame.

    Args:
        stamp: seconds, world time.
        scan: the revolution that ends at the stamp.
    """
    poses, velocities = world.actor_poses(stamp + beam_delay(world, stamp, HDL32E))
    ego = world.ego_pose(stamp)
    near = np.flatnonzero(np.hypot(poses[:, 0] - ego[0], poses[:, 1] - ego[1]) < ANNOTATED_RANGE)
    sizes = np.array([world.actors[actor].shape.size for actor in near]).reshape(-1, 3)
    centers = poses[near, :3] + np.stack([0 * sizes[:, 0], 0 * sizes[:, 1], sizes[:, 2] / 2], axis=1)
    counts = count_inside(_to_world(world, stamp, scan.points), centers, sizes, poses[near, 3])
    speeds = np.hypot(velocities[:, 0], velocities[:, 1])
    return [
        Annotation(
            actor=int(actor),
            center=center,
            size=world.actors[actor].shape.size,
            yaw=float(poses[actor, 3]),
            attribute=_attribute(world.actors[actor], speeds[actor]),
            visibility=str(1 + int(np.searchsorted(VISIBLE_SHARES, scan.visibility[actor], side="right"))),
            points=int(count),
        )
        for actor, center, count in zip(near, centers, counts, strict=True)
    ]


@kernel
def count_inside(points, centers, sizes, yaws):
    """Count the points ``[M, 3]`` in each box, faces included; ``sizes [N, 3]`` are length, width, height."""
    counts = np.zeros(len(centers), np.int64)
    for box in range(len(centers)):
        cos, sin = np.cos(yaws[box]), np.sin(yaws[box])
        half_length, half_width, half_height = sizes[box] / 2
        for point in range(len(points)):
            dx, dy = points[point, 0] - centers[box, 0], points[point, 1] - centers[box, 1]
            if abs(dx * cos + dy * sin) <= half_length and abs(dy * cos - dx * sin) <= half_width:
                counts[box] += abs(points[point, 2] - centers[box, 2]) <= half_height
    return counts


def _to_world(world: World, stamp: float, points: np.ndarray) -> np.ndarray:
    lidar2world = pose_matrix(world.ego_pose(stamp)) @ LIDAR.matrix
    return points[:, :3].astype(np.float64) @ lidar2world[:3, :3].T + lidar2world[:3, 3]


def _attribute(actor: Actor, speed: float) -> str:
    kind, name = actor.shape.category.split(".")[:2]
    if kind == "human":
        return "pedestrian.moving" if speed > MOVING_SPEED else "pedestrian.standing"
    if name in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if actor.rider else "cycle.without_rider"
    if kind != "vehicle":
        return ""
    if actor.parked:
        return "vehicle.parked"
    return "vehicle.moving" if speed > MOVING_SPEED else "vehicle.stopped"
