"""Which boxes the nuScenes detection metric looks at.

    distance((x, y), ego (x, y)) < range of the class                    both sides
    num_points >= min_points (1: what the benchmark does)                ground truth
    centre not inside an annotated bicycle rack of the same sample       bicycles and motorcycles, both sides

Source: nuScenes (Caesar et al., CVPR 2020), configuration ``detection_cvpr_2019`` of its development kit.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from numba import njit

from .nuscenes_boxes import BoxTable, GroundTruth, ObjectTable

CLASS_RANGES = MappingProxyType(
    {
        **dict.fromkeys(("car", "truck", "trailer", "bus", "construction_vehicle"), 50.0),
        **dict.fromkeys(("bicycle", "motorcycle", "pedestrian"), 40.0),
        **dict.fromkeys(("traffic_cone", "barrier"), 30.0),
    }
)  # metres
CYCLES = ("bicycle", "motorcycle")


def is_scored(
    table: ObjectTable,
    ego_translations: np.ndarray,  # [S, 3]
    bike_racks: BoxTable,
    class_names: Sequence[str],
) -> np.ndarray:
    """Return the mask ``[N]`` of boxes that are in the range of their class and are no cycles in a rack."""
    return _in_range(table, ego_translations, class_names) & _outside_racks(table, bike_racks, class_names)


def has_points(ground_truth: GroundTruth, min_points: int) -> np.ndarray:
    """Return the mask ``[N]`` of objects with at least ``min_points`` LiDAR and radar points."""
    return ground_truth.num_points >= min_points


def _in_range(
    table: ObjectTable,
    ego_translations: np.ndarray,  # [S, 3]
    class_names: Sequence[str],
) -> np.ndarray:
    """Return the mask ``[N]`` of boxes nearer to the ego vehicle, seen from above, than the range of their class."""
    ranges = np.array([CLASS_RANGES[name] for name in class_names])
    offset = table.translation[:, :2] - ego_translations[table.sample, :2]
    return np.sqrt((offset**2).sum(axis=1)) < ranges[table.label]


def _outside_racks(
    table: ObjectTable,
    bike_racks: BoxTable,
    class_names: Sequence[str],
) -> np.ndarray:
    """Return the mask ``[N]``: false for cycles whose centre lies in (or on) a bicycle rack of their sample."""
    keep = np.ones(len(table), dtype=bool)
    cycles = np.flatnonzero(np.isin(table.label, [i for i, name in enumerate(class_names) if name in CYCLES]))
    racks = bike_racks.take(np.argsort(bike_racks.sample, kind="stable"))
    first = np.searchsorted(racks.sample, table.sample[cycles], side="left")
    last = np.searchsorted(racks.sample, table.sample[cycles], side="right")
    keep[cycles] = ~_in_any_box(table.translation[cycles], _corners(racks), first, last)
    return keep


def _corners(table: BoxTable) -> np.ndarray:
    """Return one corner and its three neighbours along length, width and height: ``[K, 4, 3]``."""
    signs = np.array([(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
    local = signs * (table.size[:, None, [1, 0, 2]] / 2)
    return local @ _rotation_matrices(table.rotation).transpose(0, 2, 1) + table.translation[:, None, :]


def _rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Return ``[K, 3, 3]`` from ``[K, 4]``, as sums of squares: exact where an axis turns onto an axis."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    entries = [
        w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z,
    ]  # fmt: skip
    return np.stack(entries, axis=1).reshape(-1, 3, 3)


@njit(cache=True, nogil=True)
def _in_any_box(
    points: np.ndarray,  # [N, 3]
    corners: np.ndarray,  # [K, 4, 3]
    first: np.ndarray,  # [N] int64
    last: np.ndarray,  # [N] int64
) -> np.ndarray:
    """Return the mask ``[N]`` of points in one of the boxes ``first[n]`` to ``last[n] - 1``, faces included."""
    inside = np.zeros(len(points), np.bool_)
    for n in range(len(points)):
        for k in range(first[n], last[n]):
            if _in_box(points[n], corners[k]):
                inside[n] = True
                break
    return inside


@njit(cache=True, nogil=True)
def _in_box(point: np.ndarray, corners: np.ndarray) -> bool:
    # The tests are the development kit's, term by term, so that points on a face fall on the same side.
    for axis in range(1, 4):
        along, length = 0.0, 0.0
        for i in range(3):
            edge = corners[axis, i] - corners[0, i]
            along += edge * (point[i] - corners[0, i])
            length += edge * edge
        if not 0 <= along <= length:
            return False
    return True
