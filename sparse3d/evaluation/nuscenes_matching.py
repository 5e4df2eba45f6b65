"""Matching of detections to ground truth, and the errors of matched pairs.

For each class and each distance threshold, in the order of falling scores (equal scores in reverse order of
appearance), a detection takes the nearest ground truth of its class and sample that is not taken, the first one of
equally near ones, if it is nearer than the threshold. Distances are between centres seen from above, in metres.

Source: nuScenes (Caesar et al., CVPR 2020), section 3.1, and its development kit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from .nuscenes_boxes import NO_ATTRIBUTE, Detections, GroundTruth

ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")


def rank(detections: Detections) -> Detections:
    """Return the detections ordered by class, then by falling score, then by reverse order of (sample, row)."""
    position = np.empty(len(detections), np.int64)
    position[np.argsort(detections.sample, kind="stable")] = np.arange(len(detections))
    return detections.take(np.lexsort((-position, -detections.score, detections.label)))


def match(
    ground_truth: GroundTruth,  # [G]
    ranked: Detections,  # [P], see rank()
    num_samples: int,
    num_classes: int,
    thresholds: Sequence[float],  # [T], metres
) -> np.ndarray:
    """Return, for each threshold and detection, the row of the matched ground truth or -1: ``[T, P]`` int64."""
    group = ground_truth.sample * num_classes + ground_truth.label
    rows = np.argsort(group, kind="stable")
    offsets = np.searchsorted(group[rows], np.arange(num_samples * num_classes + 1))
    return _match(
        np.ascontiguousarray(ranked.translation[:, :2]),
        ranked.sample * num_classes + ranked.label,
        np.ascontiguousarray(ground_truth.translation[:, :2]),
        rows,
        offsets,
        np.array(thresholds, dtype=np.float64),
    )


@njit(cache=True, nogil=True)
def _match(
    centers: np.ndarray,  # [P, 2], in the order in which detections choose
    groups: np.ndarray,  # [P] int64
    gt_centers: np.ndarray,  # [G, 2]
    gt_rows: np.ndarray,  # [G] int64, rows of gt_centers in the order of their groups
    offsets: np.ndarray,  # [groups + 1] int64, where each group begins in gt_rows
    thresholds: np.ndarray,  # [T] float64
) -> np.ndarray:
    """Return the chosen row of ``gt_centers`` or -1: ``[T, P]``."""
    matches = np.full((len(thresholds), len(centers)), -1, np.int64)
    taken = np.zeros((len(gt_centers), len(thresholds)), np.bool_)
    nearest = np.empty(len(thresholds))
    for p in range(len(centers)):
        nearest[:] = thresholds
        for k in range(offsets[groups[p]], offsets[groups[p] + 1]):
            row = gt_rows[k]
            dx, dy = centers[p, 0] - gt_centers[row, 0], centers[p, 1] - gt_centers[row, 1]
            distance = math.sqrt(dx * dx + dy * dy)
            for t in range(len(thresholds)):
                if distance < nearest[t] and not taken[row, t]:
                    nearest[t] = distance
                    matches[t, p] = row
        for t in range(len(thresholds)):
            if matches[t, p] >= 0:
                taken[matches[t, p], t] = True
    return matches


def pair_errors(
    ground_truth: GroundTruth,  # [M]
    detections: Detections,  # [M], matched row by row
    symmetric: bool,
) -> dict[str, np.ndarray]:
    """Return the errors of matched pairs of one class, each ``[M]`` float64, NaN where the ground truth is unknown.

    Translation in metres (seen from above), scale as 1 - IoU of the aligned boxes, orientation in radians (modulo half
    a turn where the class is ``symmetric``), velocity in m/s, attribute as 0 (equal) or 1.
    """
    unequal = (ground_truth.attribute != detections.attribute).astype(np.float64)
    return {
        "trans_err": _norm(detections.translation[:, :2] - ground_truth.translation[:, :2]),
        "scale_err": 1 - _aligned_iou(ground_truth.size, detections.size),
        "orient_err": _yaw_difference(ground_truth.rotation, detections.rotation, math.pi * (1 if symmetric else 2)),
        "vel_err": _norm(detections.velocity - ground_truth.velocity),
        "attr_err": np.where(ground_truth.attribute == NO_ATTRIBUTE, np.nan, unequal),
    }


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=1))


def _aligned_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU ``[M]`` of boxes of sizes ``[M, 3]`` with a common centre and heading."""
    overlap = np.minimum(first, second).prod(axis=1)
    return overlap / (first.prod(axis=1) + second.prod(axis=1) - overlap)


def _yaw_difference(first: np.ndarray, second: np.ndarray, period: float) -> np.ndarray:
    """Return the angle ``[M]`` in ``[0, period / 2]`` between the headings of rotations ``[M, 4]``."""
    difference = _heading(first) - _heading(second)
    return np.abs(np.remainder(difference + period / 2, period) - period / 2)


def _heading(rotations: np.ndarray) -> np.ndarray:
    """Return the direction ``[M]`` of the turned x axis seen from above, in radians."""
    w, x, y, z = rotations.T
    return np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
