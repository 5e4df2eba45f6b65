"""The errors in a result file of the Waymo benchmark.

Detections and objects are matched as in the benchmark's metric (`evaluation/waymo_matching.py`), all those together
that score at least as much as the cut-off at which the F1 of their class is best. An object is near enough where their
IoU reaches the class's threshold, and not far where they overlap at all. Detections without an object in a no-label
zone are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..datasets.transforms.loading import camera_synced_annotations
from ..datasets.waymo_schema import CATEGORIES
from ..evaluation.waymo import CUTOFFS, DETECTION_3D, WaymoProtocol
from ..evaluation.waymo_boxes import LEVELS, TYPES, WaymoDetections, WaymoGroundTruth
from ..evaluation.waymo_matching import Pairs, best_pairs, find_pairs, matched_sums
from ..evaluation.waymo_results import WaymoResults
from ..evaluation.waymo_submission import FrameKey
from ..evaluation.waymo_tables import frame_ground_truth
from ..structures import Boxes3D, Frame
from .errors import NO_OBJECT, Analysis, Counted, Objects, Property, annotated_frames, best_score

DISTANCES = (0, 30, 50, np.inf)  # metres, the benchmark's ranges
POINTS = (1, 6, 20, 100, np.inf)  # up to five are of level 2
SPEEDS = (0, 0.2, 1, 3, 10, np.inf)  # m/s, the benchmark's


def analyze_waymo(results: WaymoResults, frames: Sequence[Frame], protocol: WaymoProtocol = DETECTION_3D) -> Analysis:
    """Compare a result file with the annotations of its frames.

    Args:
        results: the detections.
        frames: of an index; those that the file does not name are left out.
        protocol: of the task, ``DETECTION_3D`` or ``CAMERA_ONLY``.

    Raises:
        ValueError: if the file names a frame that is not among the frames, or one without annotations.
    """
    camera = protocol.overlap == "let"
    chosen = annotated_frames(results.keys, {FrameKey.of(frame): frame for frame in frames})
    types = sorted({*results.detections.type.tolist()} - {0})
    names = [CATEGORIES[number] for number in types]
    ground_truth, num_points = _annotated(chosen, names, camera)
    label_of = np.full(len(TYPES), -1)
    label_of[types] = np.arange(len(types))
    known = results.detections.take(results.detections.type > 0)
    thresholds = _best_scores(known, ground_truth, label_of, protocol)
    detections = known.take(known.score >= thresholds[label_of[known.type]])
    matches = _match(detections, ground_truth, protocol)
    concerns = (matches != NO_OBJECT) | ~detections.overlaps_no_label_zone
    detections, matches = detections.take(concerns), matches[concerns]

    def boxes(rows: np.ndarray, frame: Frame) -> Boxes3D:
        in_vehicle = Boxes3D(torch.from_numpy(detections.box[rows]))
        return in_vehicle.transform(np.linalg.inv(frame.lidar2ego))

    objects = Objects(
        ground_truth.sample,
        label_of[ground_truth.type],
        ground_truth.box[:, :2],
        _properties(ground_truth, num_points),
    )
    counted = Counted(
        detections.sample,
        label_of[detections.type],
        detections.score,
        detections.box[:, :2],
        matches,
        _causes(detections, ground_truth, protocol),
    )
    return Analysis(names, chosen, objects, counted, thresholds, boxes)


def _annotated(frames: Sequence[Frame], names: Sequence[str], camera: bool) -> tuple[WaymoGroundTruth, np.ndarray]:
    """Return the objects that are scored, and how many LiDAR points each has."""
    tables, points = [], [np.zeros(0, np.int64)]
    for frame in frames:
        notes = camera_synced_annotations(frame.annotations) if camera else frame.annotations
        tables.append(frame_ground_truth(notes, names))
        points.append(notes.num_lidar_points[np.isin(notes.categories, names) & (notes.num_lidar_points > 0)])
    return WaymoGroundTruth.concatenate(tables), np.concatenate(points)


def _properties(ground_truth: WaymoGroundTruth, num_points: np.ndarray) -> list[Property]:
    return [
        Property("distance (m)", np.linalg.norm(ground_truth.box[:, :3], axis=1), DISTANCES),
        Property("LiDAR points", num_points, POINTS),
        Property("speed (m/s)", np.linalg.norm(ground_truth.speed, axis=1), SPEEDS),
        Property("difficulty", ground_truth.level, (*LEVELS, LEVELS[-1] + 1), [f"level {level}" for level in LEVELS]),
    ]


def _best_scores(
    detections: WaymoDetections, ground_truth: WaymoGroundTruth, label_of: np.ndarray, protocol: WaymoProtocol
) -> np.ndarray:
    """Return the cut-off ``[K]`` of each class at which its F1 is best."""
    pairs = _matchable(detections, ground_truth, protocol)
    num_cutoffs = np.searchsorted(CUTOFFS, detections.score, side="right")
    labels = np.arange(label_of.max(initial=-1) + 1)
    is_class = (label_of[detections.type[pairs.detection]][:, None] == labels).astype(np.float64)
    hits = matched_sums(num_cutoffs, pairs, len(ground_truth), is_class, len(CUTOFFS))
    scores = []
    for label in labels:
        own = label_of[detections.type] == label
        reached = (num_cutoffs[own, None] > np.arange(len(CUTOFFS))).sum(axis=0)
        scores.append(best_score(CUTOFFS, hits[:, label], reached, int((label_of[ground_truth.type] == label).sum())))
    return np.array(scores)


def _match(detections: WaymoDetections, ground_truth: WaymoGroundTruth, protocol: WaymoProtocol) -> np.ndarray:
    """Return the object that each detection has ``[P]``, or ``NO_OBJECT``."""
    best = best_pairs(_matchable(detections, ground_truth, protocol), len(detections), len(ground_truth))
    matches = np.full(len(detections), NO_OBJECT)
    matches[best.detection] = best.ground_truth
    return matches


def _matchable(detections: WaymoDetections, ground_truth: WaymoGroundTruth, protocol: WaymoProtocol) -> Pairs:
    pairs = find_pairs(detections, ground_truth, protocol.overlap)
    return pairs.take((pairs.iou >= _thresholds(ground_truth, protocol)[pairs.ground_truth]) & (pairs.affinity > 0))


def _thresholds(ground_truth: WaymoGroundTruth, protocol: WaymoProtocol) -> np.ndarray:
    return np.array([protocol.thresholds.get(name, np.inf) for name in TYPES], np.float32)[ground_truth.type]


def _causes(detections: WaymoDetections, ground_truth: WaymoGroundTruth, protocol: WaymoProtocol) -> np.ndarray:
    """Return ``causes`` of ``Counted``; pairs of other classes are found by calling everything one class."""
    alike = (replace(table, type=np.ones_like(table.type)) for table in (detections, ground_truth))
    pairs = find_pairs(*alike, protocol.overlap)
    same = detections.type[pairs.detection] == ground_truth.type[pairs.ground_truth]
    enough = pairs.iou >= _thresholds(ground_truth, protocol)[pairs.ground_truth]
    causes = np.zeros((len(detections), 3), bool)
    for column, told in enumerate((same & enough, ~same & enough, same)):
        causes[pairs.detection[told], column] = True
    return causes
