"""The Waymo detection metrics: AP and APH for LiDAR, and LET-3D-AP, APH and APL for cameras.

At each of the score cut-offs 0, 0.01, ..., 1, summed over the frames of a shard and for difficulty level L:

    TP         matched detections, whatever the level of the object
    FN         objects of a level up to L without a match
    FP         detections without a match, outside of no-label zones
    recall     TP / (TP + FN)
    precision  sum of values of the matches / (TP + FP), or 1 at recall 0;
               values: 1 for AP, 1 - |yaw error| / pi for APH, the longitudinal affinity for APL
    AP         area below the largest precision at this recall or beyond, up to the highest recall reached

Numbers equal those of the official operator, float32, to some 1e-7. A shard without objects has AP 0, as there. See
``waymo_breakdowns`` for the shards and ``waymo_matching`` for the matches.

Source: Waymo Open Dataset metrics; LET-3D-AP (Hung et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .waymo_boxes import LEVELS, TYPES, WaymoDetections, WaymoGroundTruth, check_detections, check_ground_truth
from .waymo_breakdowns import Breakdown, Shard, by_camera, by_range, by_speed, by_type
from .waymo_matching import Overlap, Pairs, find_pairs, matched_sums

CUTOFFS = (np.arange(101) * 0.01).astype(np.float32)
MAX_RECALL_STEP = 0.05
STEP_TOLERANCE = 1e-6
RANKED_TYPES = ("VEHICLE", "PEDESTRIAN", "CYCLIST")  # of which the benchmark's ranking takes the mean


@dataclass(frozen=True)
class WaymoProtocol:
    """How a task of the benchmark is scored.

    Args:
        thresholds: type of object -> smallest IoU of a match.
        breakdowns: whose shards are scored, in this order.
        levels: levels of difficulty to score.
        overlap: what the IoU is of: ``3d``, ``bev``, ``let``.
    """

    thresholds: Mapping[str, float]
    breakdowns: tuple[Breakdown, ...] = (by_type, by_range)
    levels: tuple[int, ...] = LEVELS
    overlap: Overlap = "3d"

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the average precisions."""
        return ("AP", "APH", "APL") if self.overlap == "let" else ("AP", "APH")


LIDAR_THRESHOLDS = MappingProxyType({"VEHICLE": 0.7, "PEDESTRIAN": 0.5, "SIGN": 0.5, "CYCLIST": 0.5})
CAMERA_THRESHOLDS = MappingProxyType({"VEHICLE": 0.5, "PEDESTRIAN": 0.3, "SIGN": 0.3, "CYCLIST": 0.3})
DETECTION_3D = WaymoProtocol(LIDAR_THRESHOLDS)
DETECTION_BEV = WaymoProtocol(LIDAR_THRESHOLDS, overlap="bev")
DETECTION_BY_SPEED = WaymoProtocol(LIDAR_THRESHOLDS, breakdowns=(by_speed,))
CAMERA_ONLY = WaymoProtocol(CAMERA_THRESHOLDS, (by_type, by_range, by_camera), levels=(2,), overlap="let")


@dataclass(frozen=True, eq=False)
class WaymoRow:
    """One row of the official table.

    Args:
        average_precision: ``AP``, ``APH`` (and ``APL``).
        tp: ``[101]`` int64 matched detections at each cut-off.
        fp: ``[101]`` int64 detections without a match.
        fn: ``[101]`` int64 objects without a match.
    """

    average_precision: Mapping[str, float]
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


@dataclass(frozen=True, eq=False)
class WaymoResult:
    """What the metric found.

    Args:
        rows: official row name, e.g. ``RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1`` -> row.
        levels: levels of difficulty that were scored.
    """

    rows: Mapping[str, WaymoRow]
    levels: tuple[int, ...]

    @property
    def means(self) -> dict[str, float]:
        """``AP/L1``, ``APH/L1``, ...: mean over vehicles, pedestrians and cyclists of all ranges; without these, empty.

        The benchmark ranks LiDAR detection by ``APH/L2`` and camera-only detection by ``APL/L2``.
        """
        means = {}
        for level in self.levels:
            rows = [self.rows.get(f"OBJECT_TYPE_TYPE_{name}_LEVEL_{level}") for name in RANKED_TYPES]
            found = [row.average_precision for row in rows if row is not None]
            for value in found[0] if found else ():
                means[f"{value}/L{level}"] = float(np.mean([each[value] for each in found]))
        return means

    def to_dict(self) -> dict[str, float]:
        """Return flat entries for logs: mAP/L1, ..., and AP/<row>, APH/<row>."""
        flat = {f"m{name}": value for name, value in self.means.items()}
        for name, row in self.rows.items():
            flat.update({f"{value}/{name}": number for value, number in row.average_precision.items()})
        return flat

    def table(self) -> str:
        """Return the numbers as lines of text: the means, then one line a row."""
        values = list(next(iter(self.rows.values())).average_precision) if self.rows else []
        means = "  ".join(f"m{name} {value:.4f}" for name, value in self.means.items())
        header = f"{'row':<44}" + "".join(f"{value:>9}" for value in values)
        lines = [
            f"{name:<44}" + "".join(f"{row.average_precision[value]:>9.4f}" for value in values)
            for name, row in self.rows.items()
        ]
        return "\n".join([means, header, *lines])


def evaluate_waymo(
    ground_truth: WaymoGroundTruth,
    detections: WaymoDetections,
    protocol: WaymoProtocol = DETECTION_3D,
) -> WaymoResult:
    """Score detections against ground truth.

    Args:
        ground_truth: annotated objects of all frames. For ``CAMERA_ONLY``, camera-synced boxes of objects that a camera
            sees and the top LiDAR hits.
        detections: detected objects of all frames.
        protocol: ``DETECTION_3D``, ``CAMERA_ONLY``, or another one.

    Raises:
        ValueError: if a table holds what cannot be scored; the message lists the rows.
    """
    check_ground_truth("ground_truth", ground_truth)
    check_detections("detections", detections)
    pairs = find_pairs(detections, ground_truth, protocol.overlap)
    num_cutoffs = np.searchsorted(CUTOFFS, detections.score, side="right")
    rows = {}
    for breakdown in protocol.breakdowns:
        for shard in breakdown(detections, ground_truth):
            rows.update(_score_shard(shard, ground_truth, detections, pairs, num_cutoffs, protocol))
    return WaymoResult(rows, protocol.levels)


def _score_shard(
    shard: Shard,
    ground_truth: WaymoGroundTruth,  # [G]
    detections: WaymoDetections,  # [P]
    pairs: Pairs,  # [E]
    num_cutoffs: np.ndarray,  # [P]
    protocol: WaymoProtocol,
) -> dict[str, WaymoRow]:
    """Return the rows of a shard, one a level."""
    pairs = pairs.take(shard.detections[pairs.detection] & shard.ground_truth[pairs.ground_truth])
    concerns = ~_is_about_others(shard, pairs, len(detections))
    alarms = shard.detections & concerns & ~detections.overlaps_no_label_zone
    pairs = pairs.take((pairs.iou >= _thresholds(ground_truth, protocol)[pairs.ground_truth]) & (pairs.affinity > 0))

    counted = shard.counted[pairs.ground_truth].astype(np.float64)
    of_level = [shard.counted & (ground_truth.level <= level) for level in protocol.levels]
    columns = [counted, *(value * counted for value in _values(pairs, ground_truth, detections, protocol))]
    columns += [alarms[pairs.detection], *(wanted[pairs.ground_truth] for wanted in of_level)]
    sums = matched_sums(num_cutoffs, pairs, len(ground_truth), np.stack(columns, axis=1).astype(np.float64), 101)

    tp, *qualities, matched_alarms = sums[:, : -len(of_level)].T
    num_alarms = np.bincount(num_cutoffs[alarms], minlength=len(CUTOFFS) + 1)[::-1].cumsum()[::-1][1:]
    fp = num_alarms - matched_alarms
    rows = {}
    for level, wanted, matched in zip(protocol.levels, of_level, sums[:, -len(of_level) :].T, strict=True):
        fn = wanted.sum() - matched
        average = [_average_precision(quality, tp, fp, fn) for quality in (tp, *qualities)]
        counts = (each.astype(np.int64) for each in (tp, fp, fn))
        rows[f"{shard.name}_LEVEL_{level}"] = WaymoRow(dict(zip(protocol.values, average, strict=True)), *counts)
    return rows


def _values(
    pairs: Pairs, ground_truth: WaymoGroundTruth, detections: WaymoDetections, protocol: WaymoProtocol
) -> list[np.ndarray]:
    """Return what a match is worth, beside 1: accuracy of heading ``[E]``, and longitudinal affinity ``[E]``."""
    yaw = detections.box[pairs.detection, 6].astype(np.float64) - ground_truth.box[pairs.ground_truth, 6]
    difference = np.abs(np.remainder(yaw + np.pi, 2 * np.pi) - np.pi)
    heading = np.clip(1 - difference / np.pi, 0, 1)
    return [heading, pairs.affinity] if "APL" in protocol.values else [heading]


def _is_about_others(shard: Shard, pairs: Pairs, num_detections: int) -> np.ndarray:
    """Return the mask ``[P]`` of detections that overlap most with an object that the shard does not count."""
    order = np.lexsort((pairs.iou, pairs.detection))  # stable: of equal overlaps, the last object
    about_others = np.zeros(num_detections, bool)
    last = order[np.append(np.diff(pairs.detection[order]) > 0, True)] if len(order) else order
    about_others[pairs.detection[last]] = ~shard.counted[pairs.ground_truth[last]]
    return about_others


def _thresholds(ground_truth: WaymoGroundTruth, protocol: WaymoProtocol) -> np.ndarray:
    """Return the smallest IoU ``[G]`` float32 of a match; of unknown objects there is none."""
    of_type = np.array([protocol.thresholds.get(name, np.inf) for name in TYPES], np.float32)
    return of_type[ground_truth.type]


def _average_precision(
    quality: np.ndarray,  # [C], sums over the matches
    tp: np.ndarray,  # [C]
    fp: np.ndarray,  # [C]
    fn: np.ndarray,  # [C]
) -> float:
    """Return the area below the curve of precision over recall.

    Between recalls more than a step apart, the precision stays for as many whole steps as there are (seen from the
    higher recall), and falls or rises linearly in the rest; below the lowest recall it stays.
    """
    recall = _ratio(tp, tp + fn)
    precision = np.where(recall > 0, _ratio(quality, tp + fp), 1.0)
    recalls, place = np.unique(np.append(recall, 0.0), return_inverse=True)
    largest = np.zeros(len(recalls))
    np.maximum.at(largest, place, np.append(precision, 1.0))
    recalls, largest = recalls[::-1], np.maximum.accumulate(largest[::-1])
    if len(recalls) == 1:
        return 0.0
    largest[-1] = largest[-2]
    gaps = -np.diff(recalls)
    flat = np.maximum(np.ceil((gaps - MAX_RECALL_STEP - STEP_TOLERANCE) / MAX_RECALL_STEP), 0) * MAX_RECALL_STEP
    return float((largest[:-1] * flat + (largest[:-1] + largest[1:]) / 2 * (gaps - flat)).sum())


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
