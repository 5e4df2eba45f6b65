"""Matching of predicted to annotated people, by their boxes or by their keypoints, within a frame.

Source: Waymo Open Dataset, pose estimation challenge.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from .keypoints_boxes import KeypointTable
from .waymo_boxes import TYPES, WaymoObjects
from .waymo_matching import best_pairs, find_pairs

MIN_IOU = 0.5
MAX_ERROR = 0.25  # metres
INSIDE = 1e-5  # metres


def match_by_iou(
    ground_truth: KeypointTable,  # [G]
    predictions: KeypointTable,  # [P]
) -> np.ndarray:
    """Match the boxes for the largest sum of IoUs, of pairs with an IoU of at least 0.5; VoxelKP is evaluated so.

    As in the original, a box's height of the centre is taken for that of its bottom, which lifts every box by half of
    its own height.

    Returns:
        ``[K, 2]`` int64 rows of ground truth and of predictions, in the order of the former.
    """
    pairs = find_pairs(_lifted(predictions), _lifted(ground_truth), "3d")
    pairs = best_pairs(pairs.take(pairs.iou >= MIN_IOU), len(predictions), len(ground_truth))
    return _sorted(np.stack([pairs.ground_truth, pairs.detection], axis=1))


def match_by_mean_error(
    ground_truth: KeypointTable,  # [G]
    predictions: KeypointTable,  # [P]
) -> np.ndarray:
    """Match people by their keypoints, as the challenge does.

    First, people without any visible keypoint annotated are matched with predictions that have many visible keypoints
    inside their boxes and none near the same keypoint of another person. Then the rest is matched for the smallest sum
    of mean keypoint errors, of pairs whose prediction has a visible keypoint at most 0.25 m outside of the box.

    Returns:
        ``[K, 2]`` int64 rows of ground truth and of predictions, in the order of the former.
    """
    matches = [np.zeros((0, 2), np.int64)]
    for gt_rows, pred_rows in _same_frame(ground_truth, predictions):
        rows, columns = _match_frame(ground_truth.take(gt_rows), predictions.take(pred_rows))
        matches.append(np.stack([gt_rows[rows], pred_rows[columns]], axis=1))
    return _sorted(np.concatenate(matches))


def _lifted(people: KeypointTable) -> WaymoObjects:
    box = people.box.copy()
    box[:, 2] += box[:, 5] / 2
    return WaymoObjects(people.sample, box, np.full(len(people), TYPES.index("PEDESTRIAN")))


def _sorted(matches: np.ndarray) -> np.ndarray:
    return matches[np.argsort(matches[:, 0])]


def _same_frame(ground_truth: KeypointTable, predictions: KeypointTable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of annotated and of predicted people of each frame that has both."""
    orders = [np.argsort(table.sample, kind="stable") for table in (ground_truth, predictions)]
    frames = np.intersect1d(ground_truth.sample, predictions.sample)
    bounds = [
        np.searchsorted(table.sample[order], np.stack([frames, frames + 1]))
        for table, order in zip((ground_truth, predictions), orders, strict=True)
    ]
    for (gt_start, gt_stop), (start, stop) in zip(bounds[0].T, bounds[1].T, strict=True):
        yield orders[0][gt_start:gt_stop], orders[1][start:stop]


def _match_frame(
    ground_truth: KeypointTable,  # [G]
    predictions: KeypointTable,  # [P]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the matches of one frame."""
    to_box = np.where(predictions.is_visible, _distance_to_boxes(predictions, ground_truth), np.inf)
    distance = np.linalg.norm(ground_truth.location[:, None].astype(np.float64) - predictions.location, axis=-1)
    both = ground_truth.is_visible[:, None] & predictions.is_visible
    either = ground_truth.is_visible[:, None] | predictions.is_visible

    blank = ~ground_truth.is_visible.any(axis=1)
    stray = ~(both & (distance < MAX_ERROR)).any(axis=(0, 2))
    score = (to_box < INSIDE).sum(axis=-1) * (blank[:, None] & stray)
    rows, columns = linear_sum_assignment(score, maximize=True)
    found = score[rows, columns] > 0
    rows, columns = rows[found], columns[found]

    error = np.where(both, np.minimum(distance, MAX_ERROR), MAX_ERROR * either).mean(axis=-1)
    candidates = to_box.min(axis=-1) <= MAX_ERROR
    candidates[rows] = False
    candidates[:, columns] = False
    cost = np.where(candidates, error, MAX_ERROR)
    more_rows, more_columns = linear_sum_assignment(cost)
    found = cost[more_rows, more_columns] < MAX_ERROR
    return np.append(rows, more_rows[found]), np.append(columns, more_columns[found])


def _distance_to_boxes(
    people: KeypointTable,  # [P]
    boxes: KeypointTable,  # [G]
) -> np.ndarray:
    """Return the distance of each keypoint from each box ``[G, P, 14]``, 0 inside.

    As in the original, a keypoint is turned by the yaw of the box and not back by it.
    """
    box = boxes.box.astype(np.float64)
    x, y, z = np.moveaxis(people.location[None] - box[:, None, None, :3], -1, 0)
    cos, sin = np.cos(box[:, 6])[:, None, None], np.sin(box[:, 6])[:, None, None]
    turned = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)
    return np.linalg.norm(np.maximum(np.abs(turned) - box[:, None, None, 3:6] / 2, 0), axis=-1)
