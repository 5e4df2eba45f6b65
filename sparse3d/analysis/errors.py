"""What a detector gets wrong: by class, distance, number of points and speed; how; and in which frames most.

Detections take ground truth as in the nuScenes metric (`evaluation/nuscenes_matching.py`) at 2 m. Of each class only
those count that reach the score at which its F1 is best: the errors of the detector as one would use it. What is wrong
is named by the first line that holds:

    duplicate     an object of the class is near, but another detection has it
    wrong class   an object of another class is near
    misplaced     an object of the class is within twice the distance
    background    nothing is near
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.nuscenes import ERROR_THRESHOLD
from ..evaluation.nuscenes_boxes import BoxTable, Detections, GroundTruth
from ..evaluation.nuscenes_filter import has_points, is_scored
from ..evaluation.nuscenes_matching import match, pair_errors, rank
from ..evaluation.nuscenes_submission import Submission
from ..evaluation.nuscenes_world import world_bike_racks, world_ground_truth
from ..structures import Frame

KINDS = ("duplicate", "wrong class", "misplaced", "background")
BINS = {
    "distance (m)": (0, 10, 20, 30, 40, np.inf),
    "LiDAR and radar points": (1, 5, 20, 100, np.inf),
    "speed (m/s)": (0, 0.5, 3, 10, np.inf),
}


@dataclass(frozen=True, eq=False)
class Analysis:
    """Objects and detections of all frames, and what became of them.

    Args:
        class_names: names of the labels.
        frames: the frames, in the order of ``sample`` in the tables.
        ground_truth: ``[G]`` objects that are scored.
        found: ``[G]`` bool, whether a detection that counts has the object.
        offset: ``[G]`` metres between an object and its detection seen from above, NaN where it has none.
        detections: ``[P]`` detections that count.
        kind: ``[P]`` position in ``KINDS``, -1 where the detection is right.
        thresholds: score of each class from which detections count.
    """

    class_names: Sequence[str]
    frames: Sequence[Frame]
    ground_truth: GroundTruth
    found: np.ndarray
    offset: np.ndarray
    detections: Detections
    kind: np.ndarray
    thresholds: np.ndarray

    def properties(self) -> dict[str, np.ndarray]:
        """Return what objects are told apart by, ``[G]`` each, with the names of ``BINS``."""
        ego = np.array([frame.ego2global[:2, 3] for frame in self.frames]).reshape(-1, 2)[self.ground_truth.sample]
        values = (
            np.linalg.norm(self.ground_truth.translation[:, :2] - ego, axis=1),
            self.ground_truth.num_points,
            np.linalg.norm(self.ground_truth.velocity, axis=1),
        )
        return dict(zip(BINS, values, strict=True))

    def mistakes(self) -> np.ndarray:
        """Return the number of missed objects and wrong detections in each frame ``[S]``."""
        missed = np.bincount(self.ground_truth.sample[~self.found], minlength=len(self.frames))
        return missed + np.bincount(self.detections.sample[self.kind >= 0], minlength=len(self.frames))

    def recalls(self) -> Iterator[tuple[str, str, int, float, float]]:
        """Yield property, bin, objects in it, share of them that was found, mean offset of these in metres."""
        for name, values in self.properties().items():
            for low, high in zip(BINS[name][:-1], BINS[name][1:], strict=True):
                yield (name, _interval(low, high), *self._recall((values >= low) & (values < high)))

    def classes(self) -> Iterator[tuple[str, float, int, float, float, list[int]]]:
        """Yield class, score threshold, objects, recall, mean offset, and the number of mistakes of each kind."""
        for label, name in enumerate(self.class_names):
            kinds = self.kind[(self.detections.label == label) & (self.kind >= 0)]
            counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
            yield (name, float(self.thresholds[label]), *self._recall(self.ground_truth.label == label), counts)

    def _recall(self, rows: np.ndarray) -> tuple[int, float, float]:
        count, found = int(rows.sum()), self.found & rows
        offset = float(self.offset[found].mean()) if found.any() else np.nan
        return count, float(found.sum() / count) if count else np.nan, offset


def analyze(submission: Submission, frames: Sequence[Frame]) -> Analysis:
    """Compare a result file with the annotations of its frames.

    Args:
        submission: the detections.
        frames: of an index; those that the file does not name are left out.

    Raises:
        ValueError: if the file names a sample that is not among the frames, or one without annotations.
    """
    names = submission.class_names
    chosen = _frames_of(submission, frames)
    ground_truth = GroundTruth.concatenate(
        [_at(world_ground_truth(frame, frame.annotations, names), row) for row, frame in enumerate(chosen)]
    )
    racks = BoxTable.concatenate([_at(world_bike_racks(frame.annotations), row) for row, frame in enumerate(chosen)])
    egos = np.array([frame.ego2global[:3, 3] for frame in chosen]).reshape(-1, 3)
    ground_truth = ground_truth.take(is_scored(ground_truth, egos, racks, names) & has_points(ground_truth, 1))
    ranked = rank(submission.detections.take(is_scored(submission.detections, egos, racks, names)))
    [matches] = match(ground_truth, ranked, len(chosen), len(names), (ERROR_THRESHOLD,))
    thresholds = np.array([_best_score(ranked, matches, ground_truth, label) for label in range(len(names))])
    counts = ranked.score >= thresholds[ranked.label]
    detections, matches = ranked.take(counts), matches[counts]
    found, offset = np.zeros(len(ground_truth), bool), np.full(len(ground_truth), np.nan)
    right = matches >= 0
    found[matches[right]] = True
    errors = pair_errors(ground_truth.take(matches[right]), detections.take(right), symmetric=False)
    offset[matches[right]] = errors["trans_err"]
    kind = np.where(right, -1, _kinds(detections, ground_truth))
    return Analysis(names, chosen, ground_truth, found, offset, detections, kind, thresholds)


def _frames_of(submission: Submission, frames: Sequence[Frame]) -> list[Frame]:
    by_token = {frame.token: frame for frame in frames}
    missing = [token for token in submission.sample_tokens if token not in by_token]
    if missing:
        raise ValueError(f"{len(missing)} samples of the results are not in the index; the first is {missing[0]}")
    chosen = [by_token[token] for token in submission.sample_tokens]
    bare = [frame.token for frame in chosen if frame.annotations is None]
    if bare:
        raise ValueError(f"{len(bare)} frames are not annotated; the first is {bare[0]}")
    return chosen


def _at(table: BoxTable, sample: int) -> BoxTable:
    """Return a table of one sample as one of sample number ``sample``."""
    return type(table)(**{**vars(table), "sample": np.full(len(table), sample)})


def _best_score(ranked: Detections, matches: np.ndarray, ground_truth: GroundTruth, label: int) -> float:
    """Return the score of a class at which F1 = 2 hits / (detections + objects) is highest; infinite without a hit."""
    rows = ranked.label == label
    hits = np.cumsum(matches[rows] >= 0)
    if not len(hits) or not hits[-1]:
        return np.inf
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + (ground_truth.label == label).sum())
    return float(ranked.score[rows][f1.argmax()])


def _kinds(detections: Detections, ground_truth: GroundTruth) -> np.ndarray:
    """Return what each detection would be if it were wrong, ``[P]``."""
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
    near = (own < ERROR_THRESHOLD, other < ERROR_THRESHOLD, own < 2 * ERROR_THRESHOLD, np.ones(len(own), bool))
    return np.argmax(np.stack(near), axis=0)


def _interval(low: float, high: float) -> str:
    return f"{low:g} and more" if np.isinf(high) else f"{low:g} to {high:g}"
