"""Tables of boxes that the nuScenes metric reads, and the check of their contents.

All columns are in the world frame: centres in metres, sizes (width, length, height), rotations as quaternions
(w, x, y, z) of any length but zero, velocities in m/s, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .table import Table, not_finite, outside, reject

MAX_BOXES_PER_SAMPLE = 500  # detections; the benchmark refuses more
NO_ATTRIBUTE = -1

COLUMNS: Mapping[str, tuple[tuple[int, ...], type]] = {
    **Table.COLUMNS,
    "translation": ((3,), np.float64),
    "size": ((3,), np.float64),
    "rotation": ((4,), np.float64),
    "velocity": ((2,), np.float64),
    "label": ((), np.int64),
    "attribute": ((), np.int64),
    "num_points": ((), np.int64),
    "score": ((), np.float64),
}


@dataclass(frozen=True, eq=False)
class BoxTable(Table):
    """Boxes of many samples, one row a box; alone it describes bicycle racks.

    Args:
        sample: ``[N]`` int64, position of the sample.
        translation: ``[N, 3]`` float64, centres in metres.
        size: ``[N, 3]`` float64, width, length, height in metres.
        rotation: ``[N, 4]`` float64, quaternions (w, x, y, z).

    Raises:
        ValueError: if a column has another shape, or numbers where whole numbers are expected.
    """

    COLUMNS: ClassVar = COLUMNS

    translation: np.ndarray
    size: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True, eq=False)
class ObjectTable(BoxTable):
    """Boxes with what annotated and detected objects share.

    Args:
        velocity: ``[N, 2]`` float64, m/s along x and y, NaN where unknown.
        label: ``[N]`` int64, position in the class names.
        attribute: ``[N]`` int64, position in the attribute names, ``NO_ATTRIBUTE`` for none.
    """

    velocity: np.ndarray
    label: np.ndarray
    attribute: np.ndarray


@dataclass(frozen=True, eq=False)
class GroundTruth(ObjectTable):
    """Annotated objects.

    Args:
        num_points: ``[N]`` int64, LiDAR and radar points inside the box.
    """

    num_points: np.ndarray


@dataclass(frozen=True, eq=False)
class Detections(ObjectTable):
    """Detected objects.

    Args:
        score: ``[N]`` float64 in [0, 1].
    """

    score: np.ndarray


def check_boxes(name: str, table: BoxTable, num_samples: int) -> None:
    """Check samples, centres, sizes and rotations.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    reject(outside(table.sample, 0, num_samples), f"{name}.sample", f"not in [0, {num_samples})")
    for column in ("translation", "size", "rotation"):
        reject(not_finite(getattr(table, column)), f"{name}.{column}", "NaN or infinite")
    reject(np.any(table.size <= 0, axis=1), f"{name}.size", "not positive")
    reject(np.all(table.rotation == 0, axis=1), f"{name}.rotation", "a quaternion of length zero")


def check_objects(name: str, table: ObjectTable, num_samples: int, num_classes: int, num_attributes: int) -> None:
    """Check what ``check_boxes`` checks, velocities, labels and attributes.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    check_boxes(name, table, num_samples)
    reject(np.isinf(table.velocity).any(axis=1), f"{name}.velocity", "infinite")
    reject(outside(table.label, 0, num_classes), f"{name}.label", f"not in [0, {num_classes})")
    wrong = outside(table.attribute, NO_ATTRIBUTE, num_attributes)
    reject(wrong, f"{name}.attribute", f"not in [{NO_ATTRIBUTE}, {num_attributes})")


def check_ground_truth(name: str, table: GroundTruth, num_samples: int, num_classes: int, num_attributes: int) -> None:
    """Check what ``check_objects`` checks and the numbers of points.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    check_objects(name, table, num_samples, num_classes, num_attributes)
    reject(table.num_points < 0, f"{name}.num_points", "negative")


def check_detections(name: str, table: Detections, num_samples: int, num_classes: int, num_attributes: int) -> None:
    """Check what ``check_objects`` checks and the scores.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    check_objects(name, table, num_samples, num_classes, num_attributes)
    reject(~((table.score >= 0) & (table.score <= 1)), f"{name}.score", "not in [0, 1]")


def check_box_counts(name: str, table: Detections, num_samples: int) -> None:
    """Check that no sample has more boxes than the benchmark accepts.

    Raises:
        ValueError: with ``name`` and the samples that have.
    """
    counts = np.bincount(table.sample, minlength=num_samples)
    reject(counts > MAX_BOXES_PER_SAMPLE, name, f"more than {MAX_BOXES_PER_SAMPLE} boxes", of="sample")
