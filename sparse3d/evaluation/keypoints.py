"""Metrics of human keypoints on Waymo.

For keypoint j of a row, which is an annotated person and the prediction for it: d is the distance, b = (l w h)^(1/3) of
the annotated box, k_j its scale in ``OKS_SCALES``; it is present if both sides give a location, visible or occluded.

    MPJPE        mean of d over the present keypoints of all rows
    PCK@t        share of the present keypoints of all rows with d <= t b k_j
    OKS          of a row, mean of exp(-d^2 / (2 (b k_j)^2)) over its present keypoints. Where no keypoint is annotated,
                 over all of them, d being how far the prediction is outside of three times the box (without its yaw)
    OKS P@t      share of the rows with OKS > t, and OKS AP, the mean over t; rows with empty boxes do not count
    PEM          mean of min(d, C) where both sides are visible and of C where one is; C = 0.25 m
    Precision    share of the keypoints that are predicted as visible which are annotated as visible
    Recall       share of the keypoints that are annotated as visible which are predicted as visible

MPJPE, PCK and OKS are of the matches with people that have a visible keypoint annotated. PEM, precision and recall
count two more kinds of rows, whose other side is empty: such people without a match, and predictions with a visible
keypoint without one. The mean of nothing is 0.

Source: Waymo Open Dataset, pose estimation challenge; the scale in PCK is that of its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .keypoints_boxes import GROUPS, OKS_SCALES, KeypointTable, check_keypoints
from .keypoints_matching import match_by_iou

PENALTY = 0.25  # metres
PCK_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
OKS_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ENLARGEMENT = 3.0
TABLE_COLUMNS = MappingProxyType(
    {
        "MPJPE": "MPJPE/{}",
        "PCK@0.2": "PCK/{} @ 0.20",
        "OKS AP": "OKS/{} AP",
        "PEM": "PEM/{}",
        "precision": "Precision/{}",
        "recall": "Recall/{}",
    }
)

Matcher = Callable[[KeypointTable, KeypointTable], np.ndarray]


@dataclass(frozen=True, eq=False)
class KeypointResult:
    """What the metrics found; keys are the official names.

    Args:
        matches: ``[K, 2]`` int64 rows of ground truth and of predictions, people without visible keypoints included.
        matched_only: ``MPJPE/ALL``, ``PCK/ALL @ 0.20``, ``OKS/ALL P @ 0.50``, ``OKS/ALL AP``, and of the other groups.
        full_set: ``PEM/ALL``, ``Precision/ALL``, ``Recall/ALL``, ``MPJPE/ALL``, and of the other groups.
    """

    matches: np.ndarray
    matched_only: Mapping[str, float]
    full_set: Mapping[str, float]

    def to_dict(self) -> dict[str, float]:
        """Return all numbers by name."""
        return {**self.matched_only, **self.full_set}

    def summary(self) -> dict[str, float]:
        """Return the numbers of the table by name, for logs: of the many thresholds, those in use."""
        numbers = self.to_dict()
        names = (entry.format(group) for group in GROUPS for entry in TABLE_COLUMNS.values())
        return {name: numbers[name] for name in names}

    def table(self) -> str:
        """Return the numbers as lines of text, one line a group of keypoints; MPJPE and PEM are in metres."""
        numbers = self.summary()
        header = f"{'group':<12}" + "".join(f"{name:>10}" for name in TABLE_COLUMNS)
        lines = [
            f"{group:<12}" + "".join(f"{numbers[entry.format(group)]:>10.4f}" for entry in TABLE_COLUMNS.values())
            for group in GROUPS
        ]
        return "\n".join([header, *lines])


def evaluate_keypoints(
    ground_truth: KeypointTable,
    predictions: KeypointTable,
    matcher: Matcher = match_by_iou,
    annotated_frames_only: bool = True,
) -> KeypointResult:
    """Score predicted people against annotated ones.

    Args:
        ground_truth: annotated people of all frames.
        predictions: predicted people of all frames.
        matcher: ``match_by_iou``, as VoxelKP was evaluated, or ``match_by_mean_error``, the challenge's.
        annotated_frames_only: leave out predictions in frames without annotated people, as VoxelKP's evaluation does.
            Rows of ``matches`` always count all predictions.

    Raises:
        ValueError: if a table holds what cannot be scored; the message lists the rows.
    """
    check_keypoints("ground_truth", ground_truth)
    check_keypoints("predictions", predictions)
    matches = matcher(ground_truth, predictions)
    judged = ground_truth.is_visible.any(axis=1)
    scored = matches[judged[matches[:, 0]]]
    people, found = ground_truth.take(scored[:, 0]), predictions.take(scored[:, 1])

    missed = judged & ~_among(scored[:, 0], len(ground_truth))
    false = predictions.is_visible.any(axis=1) & ~_among(matches[:, 1], len(predictions))
    if annotated_frames_only:
        false &= np.isin(predictions.sample, ground_truth.sample)
    missed, false = ground_truth.take(missed), predictions.take(false)
    # Rows are pairs from here on: which frame they are of no longer matters.
    all_people = KeypointTable.concatenate([people, missed, KeypointTable.absent(len(false))])
    all_found = KeypointTable.concatenate([found, KeypointTable.absent(len(missed)), false])
    return KeypointResult(matches, _location_metrics(people, found), _full_metrics(all_people, all_found))


def _among(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the mask ``[count]`` of the rows."""
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _location_metrics(
    people: KeypointTable,  # [N]
    found: KeypointTable,  # [N]
) -> dict[str, float]:
    """Return MPJPE, PCK and OKS of the rows."""
    distance, present = _distance(people, found), people.is_present & found.is_present
    scale = np.cbrt(people.box[:, 3:6].astype(np.float64).prod(axis=1))[:, None] * OKS_SCALES
    metrics = {}
    for name, group in GROUPS.items():
        d, weight, s = distance[:, group], present[:, group], scale[:, group]
        metrics[f"MPJPE/{name}"] = _mean(d, weight)
        for threshold in PCK_THRESHOLDS:
            metrics[f"PCK/{name} @ {threshold:.2f}"] = _mean(d <= threshold * s, weight)
        metrics.update(_oks_metrics(name, _oks(people, found, d, weight, s, group), scale[:, 0] > 0))
    return metrics


def _oks(
    people: KeypointTable,  # [N]
    found: KeypointTable,  # [N]
    distance: np.ndarray,  # [N, J]
    present: np.ndarray,  # [N, J]
    scale: np.ndarray,  # [N, J]
    group: tuple[int, ...],
) -> np.ndarray:
    """Return the similarity ``[N]`` of the keypoints of a group, 0 where none is present."""
    unlabelled = ~people.is_present[:, group].any(axis=1, keepdims=True)
    distance = np.where(unlabelled, _outside_box(people, found)[:, group], distance)
    weight = present | unlabelled
    exponent = np.divide(distance, scale, out=np.full_like(distance, np.inf), where=scale > 0) ** 2 / 2
    total = (np.exp(-exponent) * weight).sum(axis=1)
    return np.divide(total, weight.sum(axis=1), out=np.zeros(len(total)), where=weight.any(axis=1))


def _oks_metrics(name: str, oks: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Return the share of rows above each threshold, and the mean of the shares."""
    shares = {threshold: _mean(oks > threshold, counts) for threshold in OKS_THRESHOLDS}
    metrics = {f"OKS/{name} P @ {threshold:.2f}": share for threshold, share in shares.items()}
    return {**metrics, f"OKS/{name} AP": float(np.mean(list(shares.values())))}


def _outside_box(people: KeypointTable, found: KeypointTable) -> np.ndarray:
    """Return how far ``[N, 14]`` predicted keypoints are outside of the enlarged boxes, which are not turned."""
    box = people.box[:, None].astype(np.float64)
    beyond = np.abs(found.location - box[..., :3]) - ENLARGEMENT * box[..., 3:6] / 2
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1)


def _full_metrics(
    people: KeypointTable,  # [N]
    found: KeypointTable,  # [N]
) -> dict[str, float]:
    """Return PEM, precision, recall and MPJPE of the rows."""
    distance, present = _distance(people, found), people.is_present & found.is_present
    both, either = people.is_visible & found.is_visible, people.is_visible | found.is_visible
    error = np.where(both, np.minimum(distance, PENALTY), PENALTY)
    metrics = {}
    for name, group in GROUPS.items():
        metrics[f"PEM/{name}"] = _mean(error[:, group], either[:, group])
        metrics[f"Precision/{name}"] = _mean(both[:, group], found.is_visible[:, group])
        metrics[f"Recall/{name}"] = _mean(both[:, group], people.is_visible[:, group])
        metrics[f"MPJPE/{name}"] = _mean(distance[:, group], present[:, group])
    return metrics


def _distance(people: KeypointTable, found: KeypointTable) -> np.ndarray:
    """Return the distance ``[N, 14]`` between equal keypoints of equal rows."""
    return np.linalg.norm(people.location.astype(np.float64) - found.location, axis=-1)


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    """Return the mean of the values that count, 0 if none does."""
    return float(values[where].mean()) if where.any() else 0.0
