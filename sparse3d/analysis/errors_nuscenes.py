"""The errors in a result file of the nuScenes benchmark.

Detections take ground truth as in the benchmark's metric (`evaluation/nuscenes_matching.py`) at 2 m. An object is near
enough within this distance, and not far within twice of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..datasets.nuscenes_schema import CATEGORY_TO_CLASS
from ..evaluation.nuscenes import ERROR_THRESHOLD
from ..evaluation.nuscenes_boxes import BoxTable, Detections, GroundTruth
from ..evaluation.nuscenes_filter import has_points, is_scored
from ..evaluation.nuscenes_matching import match, rank
from ..evaluation.nuscenes_submission import Submission
from ..evaluation.nuscenes_world import world_bike_racks, world_ground_truth
from ..structures import Boxes3D, Frame
from .errors import NO_OBJECT, Analysis, Counted, Objects, Property, annotated_frames, best_score

DISTANCES = (0, 10, 20, 30, 40, np.inf)  # metres
POINTS = (1, 5, 20, 100, np.inf)
SPEEDS = (0, 0.5, 3, 10, np.inf)  # m/s
VISIBILITIES = (1, 2, 3, 4, 5)  # the data set's levels
VISIBLE_SHARES = ("0 to 40", "40 to 60", "60 to 80", "80 to 100")


def analyze_nuscenes(submission: Submission, frames: Sequence[Frame]) -> Analysis:
    """Compare a result file with the annotations of its frames.

    Args:
        submission: the detections.
        frames: of an index; those that the file does not name are left out.

    Raises:
        ValueError: if the file names a sample that is not among the frames, or one without annotations.
    """
    names = submission.class_names
    chosen = annotated_frames(submission.sample_tokens, {frame.token: frame for frame in frames})
    ground_truth, visibility, racks = _annotated(chosen, names)
    egos = np.array([frame.ego2global[:3, 3] for frame in chosen]).reshape(-1, 3)
    scored = is_scored(ground_truth, egos, racks, names) & has_points(ground_truth, 1)
    ground_truth, visibility = ground_truth.take(scored), visibility[scored]
    ranked = rank(submission.detections.take(is_scored(submission.detections, egos, racks, names)))
    [matches] = match(ground_truth, ranked, len(chosen), len(names), (ERROR_THRESHOLD,))
    thresholds = np.array([_best_score(ranked, matches, ground_truth, label) for label in range(len(names))])
    counts = ranked.score >= thresholds[ranked.label]
    detections = ranked.take(counts)

    def boxes(rows: np.ndarray, frame: Frame) -> Boxes3D:
        mine = detections.take(rows)
        in_world = Boxes3D.from_nuscenes(mine.translation, mine.size, mine.rotation, mine.velocity)
        return in_world.transform(np.linalg.inv(frame.lidar2global))

    objects = Objects(
        ground_truth.sample,
        ground_truth.label,
        ground_truth.translation[:, :2],
        _properties(ground_truth, egos, visibility),
    )
    counted = Counted(
        detections.sample,
        detections.label,
        detections.score,
        detections.translation[:, :2],
        matches[counts],
        _causes(detections, ground_truth),
    )
    return Analysis(names, chosen, objects, counted, thresholds, boxes)


def _annotated(frames: Sequence[Frame], names: Sequence[str]) -> tuple[GroundTruth, np.ndarray, BoxTable]:
    """Return the objects of the classes, how visible each is (NaN where the data set does not say), and the racks."""
    notes = [frame.annotations for frame in frames]
    tables = [world_ground_truth(frame, note, names) for frame, note in zip(frames, notes, strict=True)]
    visibility = [np.zeros(0)]
    for note, table in zip(notes, tables, strict=True):
        of_class = np.array([CATEGORY_TO_CLASS.get(name, "") in names for name in note.categories], dtype=bool)
        known = note.visibilities is not None
        visibility.append(note.visibilities[of_class] if known else np.full(len(table), np.nan))
    racks = [world_bike_racks(note) for note in notes]
    return GroundTruth.concatenate(tables), np.concatenate(visibility), BoxTable.concatenate(racks)


def _properties(ground_truth: GroundTruth, egos: np.ndarray, visibility: np.ndarray) -> list[Property]:
    distance = np.linalg.norm(ground_truth.translation[:, :2] - egos[ground_truth.sample, :2], axis=1)
    found = [
        Property("distance (m)", distance, DISTANCES),
        Property("LiDAR and radar points", ground_truth.num_points, POINTS),
        Property("speed (m/s)", np.linalg.norm(ground_truth.velocity, axis=1), SPEEDS),
    ]
    if np.isfinite(visibility).any():
        found.append(Property("visible in the cameras (%)", visibility, VISIBILITIES, VISIBLE_SHARES))
    return found


def _best_score(ranked: Detections, matches: np.ndarray, ground_truth: GroundTruth, label: int) -> float:
    rows = ranked.label == label
    hits = np.cumsum(matches[rows] != NO_OBJECT)
    number = np.arange(1, len(hits) + 1)
    return best_score(ranked.score[rows], hits, number, int((ground_truth.label == label).sum()))


def _causes(detections: Detections, ground_truth: GroundTruth) -> np.ndarray:
    """Return ``causes`` of ``Counted``."""
    own, other = (np.full(len(detections), np.inf) for _ in range(2))
    for sample in np.unique(detections.sample):
        rows, objects = np.flatnonzero(detections.sample == sample), np.flatnonzero(ground_truth.sample == sample)
        if not len(objects):
            continue
        apart = detections.translation[rows, None, :2] - ground_truth.translation[None, objects, :2]
        distance = np.linalg.norm(apart, axis=2)
        same = detections.label[rows, None] == ground_truth.label[None, objects]
        own[rows] = np.where(same, distance, np.inf).min(axis=1)
        other[rows] = np.where(same, np.inf, distance).min(axis=1)
    return np.stack([own < ERROR_THRESHOLD, other < ERROR_THRESHOLD, own < 2 * ERROR_THRESHOLD], axis=1)
