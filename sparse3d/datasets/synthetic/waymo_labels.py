"""Labels of one frame as Waymo has them: boxes, where the cameras saw them, keypoints of people.

A box stands where its object was when the roof's beam passed it, in the axes of the vehicle at the frame's time. A
keypoint is visible if a return lies near it, and occluded if none does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..waymo_schema import CATEGORIES
from .annotation import count_inside
from .lidar import Returns, beam_delay
from .parts import turn
from .rig import Camera, Laser, pose_matrix
from .waymo_rig import CAMERAS
from .world import Actor, World

LABELLED_RANGE = 75.0  # metres from the vehicle
HARD_SHARE = 0.3  # objects of which less is seen are of LEVEL_2 by hand
KEYPOINT_POINTS = 10  # returns that a person needs to be given keypoints
NEAR_KEYPOINT = 0.15  # metres
VELOCITY_STEP = 0.05  # seconds
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2


@dataclass(frozen=True)
class Label:
    """One object in one frame, in the axes of the vehicle."""

    actor: int
    type: int
    box: np.ndarray  # [7]
    points: int
    top_points: int
    speed: np.ndarray  # [2] m/s, world axes
    acceleration: np.ndarray  # [2] m/s^2, world axes
    difficulty: int | None
    camera: int  # 0 for none
    synced_box: np.ndarray  # [7], where that camera saw it
    keypoints: np.ndarray | None  # [14, 3]
    occluded: np.ndarray | None  # [14] bool


def label_frame(world: World, stamp: float, top: Laser, returns: dict[int, Returns]) -> Iterator[Label]:
    """Yield the labels of a frame.

    Args:
        stamp: seconds, world time.
        top: the roof's laser.
        returns: what all lasers measured, by their number; 1 is the roof's.
    """
    points = {number: each.positions[each.kept] for number, each in returns.items()}
    everything = np.concatenate(list(points.values()))
    tree = cKDTree(everything)
    poses, velocities = world.actor_poses(stamp + beam_delay(world, stamp, top))
    sizes = np.array([actor.shape.size for actor in world.actors])
    boxes = actor_boxes(world, stamp, poses, sizes)
    counts = count_inside(everything, _middles(poses, sizes), sizes, poses[:, 3])
    top_counts = count_inside(points[1], _middles(poses, sizes), sizes, poses[:, 3])
    cameras, synced = _best_cameras(world, stamp, sizes)
    changes = (world.actor_poses(stamp)[1] - world.actor_poses(stamp - VELOCITY_STEP)[1]) / VELOCITY_STEP
    near = np.hypot(boxes[:, 0], boxes[:, 1]) < LABELLED_RANGE
    for number, actor in enumerate(world.actors):
        kind = object_type(actor)
        if kind == 0 or not near[number] or counts[number] == 0:
            continue
        seen = returns[1].visibility[number]
        keypoints, occluded = _keypoints(world, stamp, actor, poses[number], tree, counts[number])
        yield Label(
            actor=number,
            type=kind,
            box=boxes[number],
            points=int(counts[number]),
            top_points=int(top_counts[number]),
            speed=velocities[number, :2],
            acceleration=changes[number, :2],
            difficulty=2 if seen < HARD_SHARE else None,
            camera=int(cameras[number]) if seen > 0 else 0,
            synced_box=synced[number],
            keypoints=keypoints,
            occluded=occluded,
        )


def object_type(actor: Actor) -> int:
    """Return the type of an object, 0 for what is not labelled: cycles without a rider, cones, barriers, racks."""
    kind, _, name = actor.shape.category.partition(".")
    if kind == "human":
        return CATEGORIES.index("Pedestrian")
    if name.startswith("bicycle"):
        return CATEGORIES.index("Cyclist") if actor.rider else 0
    return CATEGORIES.index("Vehicle") if kind == "vehicle" else 0


def actor_boxes(world: World, stamp: float, poses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the boxes ``[N, 7]`` of objects at ``poses [N, 4]``, in the axes of the vehicle at ``stamp``."""
    ego = world.ego_pose(stamp)
    middles = _middles(poses, sizes)
    turned = np.mod(poses[:, 3] - ego[2] + np.pi, 2 * np.pi) - np.pi
    return np.concatenate([_to_vehicle(world, stamp, middles), sizes, turned[:, None]], axis=1)


def _middles(poses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    middles = poses[:, :3].copy()
    middles[:, 2] += sizes[:, 2] / 2
    return middles


def _to_vehicle(world: World, stamp: float, places: np.ndarray) -> np.ndarray:
    pose = pose_matrix(world.ego_pose(stamp))
    return (places - pose[:3, 3]) @ pose[:3, :3]


def _best_cameras(world: World, stamp: float, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera ``[N]`` that has most corners of each object in its image, and the box ``[N, 7]`` there."""
    most, best = np.zeros(len(sizes), dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    synced = np.zeros((len(sizes), 7))
    for number, camera in enumerate(CAMERAS, start=1):
        time = stamp + camera.delay / 1e6
        poses, _ = world.actor_poses(time)
        inside = _corners_inside(camera, actor_boxes(world, time, poses, sizes))
        better = inside > most
        most[better], best[better] = inside[better], number
        synced[better] = actor_boxes(world, stamp, poses, sizes)[better]
    return best, synced


def _corners_inside(camera: Camera, boxes: np.ndarray) -> np.ndarray:
    """Return how many of the eight corners of boxes ``[N, 7]`` fall into an image."""
    turns = np.stack([turn(yaw, 0.0) for yaw in boxes[:, 6]])
    corners = np.einsum("nij,ncj->nci", turns, CORNERS * boxes[:, None, 3:6]) + boxes[:, None, :3]
    mount = camera.mount.matrix
    local = (corners - mount[:3, 3]) @ mount[:3, :3]
    ahead = local[..., 2] > 0.5
    pixels = local @ camera.intrinsic(1.0).T
    pixels = pixels[..., :2] / np.where(ahead, pixels[..., 2], 1.0)[..., None]
    return (ahead & (pixels >= 0).all(axis=-1) & (pixels < camera.size).all(axis=-1)).sum(axis=1)


def _keypoints(
    world: World, stamp: float, actor: Actor, pose: np.ndarray, tree: cKDTree, count: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    joints = actor.shape.keypoints
    if joints is None or count < KEYPOINT_POINTS:
        return None, None
    places = joints @ turn(pose[3], 0.0).T + pose[:3]
    distances, _ = tree.query(places)
    return _to_vehicle(world, stamp, places), distances > NEAR_KEYPOINT
