"""Tables of boxes that the Waymo detection metrics read, and the check of their contents.

Boxes are in the vehicle frame of their own frame: ``[x, y, z, l, w, h, yaw]``, metres, radians. They are float32, as
the official operator's, because its comparisons with ranges, scores and thresholds are of float32 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..datasets.waymo_schema import CAMERAS, TYPES
from .table import Table, not_finite, outside, reject

SCORED_TYPES = TYPES[1:]
LEVELS = (1, 2)
NO_LEVEL = 0  # counts as an object of either level
UNKNOWN_CAMERA = 0
MAX_LEVEL_2_POINTS = 5


@dataclass(frozen=True, eq=False)
class WaymoObjects(Table):
    """Boxes of many frames, one row a box.

    Args:
        sample: ``[N]`` int64, position of the frame.
        box: ``[N, 7]`` float32.
        type: ``[N]`` int64, position in ``TYPES``; unknown objects are not scored.
    """

    COLUMNS: ClassVar = {
        "sample": ((), np.int64),
        "box": ((7,), np.float32),
        "type": ((), np.int64),
        "score": ((), np.float32),
        "overlaps_no_label_zone": ((), np.bool_),
        "level": ((), np.int64),
        "speed": ((2,), np.float32),
        "camera": ((), np.int64),
    }

    box: np.ndarray
    type: np.ndarray


@dataclass(frozen=True, eq=False)
class WaymoGroundTruth(WaymoObjects):
    """Annotated objects; those without LiDAR points are to be left out (see ``difficulty``).

    Args:
        level: ``[N]`` int64 difficulty: 1, 2, or ``NO_LEVEL``.
        speed: ``[N, 2]`` float32, m/s along the global x and y.
        camera: ``[N]`` int64, position of the most visible camera in ``CAMERAS``; unknown: it follows from the azimuth.
    """

    level: np.ndarray
    speed: np.ndarray
    camera: np.ndarray


@dataclass(frozen=True, eq=False)
class WaymoDetections(WaymoObjects):
    """Detected objects.

    Args:
        score: ``[N]`` float32 in [0, 1].
        overlaps_no_label_zone: ``[N]`` bool; such a detection is no false positive.
    """

    score: np.ndarray
    overlaps_no_label_zone: np.ndarray


def difficulty(
    level: np.ndarray,  # [N]
    num_points: np.ndarray,  # [N]
) -> np.ndarray:
    """Return the level ``[N]`` int64 that an object is scored at.

    Args:
        level: what an annotator assigned, ``NO_LEVEL`` for nothing.
        num_points: LiDAR points in the box; the camera-only task counts those of the top LiDAR. Objects with none are
            not scored: drop them.
    """
    return np.where(level != NO_LEVEL, level, np.where(num_points <= MAX_LEVEL_2_POINTS, 2, 1)).astype(np.int64)


def tables_from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[WaymoGroundTruth, WaymoDetections]:
    """Return the tables of boxes that are given as the official operator takes them.

    Args:
        arrays: ``gt_boxes`` ``[M, 7]``, ``gt_types``, ``gt_frame_ids``, ``gt_difficulty`` ``[M]``, ``gt_speeds``
            ``[M, 2]``; ``pred_boxes`` ``[N, 7]``, ``pred_types``, ``pred_frame_ids``, ``pred_scores``,
            ``pred_overlap_nlz`` ``[N]``. Frames may have any numbers; cameras are unknown.
    """
    count = len(arrays["gt_frame_ids"])
    frames = np.concatenate([arrays["gt_frame_ids"], arrays["pred_frame_ids"]])
    samples = np.unique(frames, return_inverse=True)[1]
    ground_truth = WaymoGroundTruth(
        sample=samples[:count],
        box=arrays["gt_boxes"],
        type=arrays["gt_types"],
        level=arrays["gt_difficulty"],
        speed=arrays["gt_speeds"],
        camera=np.full(count, UNKNOWN_CAMERA),
    )
    detections = WaymoDetections(
        sample=samples[count:],
        box=arrays["pred_boxes"],
        type=arrays["pred_types"],
        score=arrays["pred_scores"],
        overlaps_no_label_zone=arrays["pred_overlap_nlz"],
    )
    return ground_truth, detections


def check_objects(name: str, table: WaymoObjects) -> None:
    """Check frames, boxes and types.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    reject(table.sample < 0, f"{name}.sample", "negative")
    reject(not_finite(table.box), f"{name}.box", "NaN or infinite")
    reject((table.box[:, 3:6] < 0).any(axis=1), f"{name}.box", "a negative size")
    reject(outside(table.type, 0, len(TYPES)), f"{name}.type", f"not in [0, {len(TYPES)})")


def check_ground_truth(name: str, table: WaymoGroundTruth) -> None:
    """Check what ``check_objects`` checks, levels, speeds and cameras.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    check_objects(name, table)
    reject(outside(table.level, NO_LEVEL, max(LEVELS) + 1), f"{name}.level", f"not in [0, {max(LEVELS)}]")
    reject(not_finite(table.speed), f"{name}.speed", "NaN or infinite")
    reject(outside(table.camera, 0, len(CAMERAS)), f"{name}.camera", f"not in [0, {len(CAMERAS)})")


def check_detections(name: str, table: WaymoDetections) -> None:
    """Check what ``check_objects`` checks, and scores.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    check_objects(name, table)
    reject(~((table.score >= 0) & (table.score <= 1)), f"{name}.score", "not in [0, 1]")
