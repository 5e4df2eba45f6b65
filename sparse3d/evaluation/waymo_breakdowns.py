"""Breakdowns of the Waymo detection metrics: which boxes are scored together.

A breakdown has shards, each of one type of object. In most of them a detection and an object belong to a shard each by
its own box, so a detection just inside of 30 m never meets an object just outside. Breakdowns by what only annotations
know (how fast an object is, which camera sees it best) match all boxes in question and then count, of the matches,
misses and false alarms, those that concern the objects of the shard.

Source: Waymo Open Dataset, metric configuration and breakdown generators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .waymo_boxes import CAMERAS, SCORED_TYPES, TYPES, UNKNOWN_CAMERA, WaymoDetections, WaymoGroundTruth, WaymoObjects

RANGES = {"[0, 30)": (0, 30), "[30, 50)": (30, 50), "[50, +inf)": (50, np.inf)}  # metres
SPEEDS = ("STATIONARY", "SLOW", "MEDIUM", "FAST", "VERY_FAST")
SPEED_BOUNDS = (0, 0.2, 1, 3, 10, np.inf)  # m/s
AZIMUTHS = {"FRONT": 0, "FRONT-LEFT": 45, "FRONT-RIGHT": -45, "SIDE-LEFT": 90, "SIDE-RIGHT": -90}  # degrees
HALF_VIEW = 25.2  # degrees to either side


@dataclass(frozen=True, eq=False)
class Shard:
    """Boxes that are matched with each other.

    Args:
        name: official name, without the level.
        detections: ``[P]`` bool, who takes part.
        ground_truth: ``[G]`` bool, who takes part.
        counted: ``[G]`` bool, the part of ``ground_truth`` that the shard is about.
    """

    name: str
    detections: np.ndarray
    ground_truth: np.ndarray
    counted: np.ndarray


Breakdown = Callable[[WaymoDetections, WaymoGroundTruth], Iterator[Shard]]


def by_type(detections: WaymoDetections, ground_truth: WaymoGroundTruth) -> Iterator[Shard]:
    """One shard for each type of object."""
    for name in SCORED_TYPES:
        yield _by_own_box(f"OBJECT_TYPE_TYPE_{name}", _is_type(detections, name), _is_type(ground_truth, name))


def by_range(detections: WaymoDetections, ground_truth: WaymoGroundTruth) -> Iterator[Shard]:
    """For each type, three shards by the distance of a box's centre from the vehicle's origin."""
    found, annotated = _distance(detections), _distance(ground_truth)
    for name in SCORED_TYPES:
        for label, bounds in RANGES.items():
            yield _by_own_box(
                f"RANGE_TYPE_{name}_{label}",
                _is_type(detections, name) & _within(found, *bounds),
                _is_type(ground_truth, name) & _within(annotated, *bounds),
            )


def by_speed(detections: WaymoDetections, ground_truth: WaymoGroundTruth) -> Iterator[Shard]:
    """For each type, five shards by the speed of an object over ground."""
    speed = np.hypot(*ground_truth.speed.T)
    for name in SCORED_TYPES:
        found, annotated = _is_type(detections, name), _is_type(ground_truth, name)
        for label, bounds in zip(SPEEDS, pairwise(SPEED_BOUNDS), strict=True):
            yield Shard(f"VELOCITY_TYPE_{name}_{label}", found, annotated, annotated & _within(speed, *bounds))


def by_camera(detections: WaymoDetections, ground_truth: WaymoGroundTruth) -> Iterator[Shard]:
    """For each type, five shards by the camera that sees an object best."""
    found, annotated = _in_view(detections), _in_view(ground_truth)
    camera = _best_camera(ground_truth, annotated)
    for name in SCORED_TYPES:
        for place, label in enumerate(CAMERAS[1:]):
            taking_part = _is_type(ground_truth, name) & annotated[place]
            yield Shard(
                f"CAMERA_TYPE_{name}_{label}",
                _is_type(detections, name) & found[place],
                taking_part,
                taking_part & (camera == place + 1),
            )


def _by_own_box(name: str, detections: np.ndarray, ground_truth: np.ndarray) -> Shard:
    return Shard(name, detections, ground_truth, counted=ground_truth)


def _is_type(objects: WaymoObjects, name: str) -> np.ndarray:
    return objects.type == TYPES.index(name)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)


def _distance(objects: WaymoObjects) -> np.ndarray:
    """Return the distance ``[N]`` float64 of the centres from the origin."""
    return np.sqrt((objects.box[:, :3].astype(np.float64) ** 2).sum(axis=1))


def _in_view(objects: WaymoObjects) -> np.ndarray:
    """Return which cameras ``[5, N]`` look towards the centres."""
    x, y = objects.box[:, :2].astype(np.float64).T
    azimuth = np.degrees(np.arctan2(y, x))
    return np.abs(azimuth - np.array(list(AZIMUTHS.values()))[:, None]) < HALF_VIEW


def _best_camera(ground_truth: WaymoGroundTruth, in_view: np.ndarray) -> np.ndarray:
    """Return the camera ``[G]`` that is annotated, or the first one that looks towards the object."""
    first = np.where(in_view.any(axis=0), in_view.argmax(axis=0) + 1, UNKNOWN_CAMERA)
    return np.where(ground_truth.camera != UNKNOWN_CAMERA, ground_truth.camera, first)
