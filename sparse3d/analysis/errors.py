"""What a detector gets wrong: by class and by properties of the objects; how; and in which frames most.

Who takes whom is a benchmark's business (`errors_nuscenes.py`, `errors_waymo.py`). Of each class only those detections
count that reach the score at which its F1 is best: the errors of the detector as one would use it. What is wrong is
named by the first line that holds:

    duplicate     an object of the class is near enough, but another detection has it
    wrong class   an object of another class is near enough
    misplaced     an object of the class is not far
    background    nothing is near
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..structures import Boxes3D, Frame

KINDS = ("duplicate", "wrong class", "misplaced", "background")
RIGHT = -1  # in the place of a kind
NO_OBJECT = -1


@dataclass(frozen=True, eq=False)
class Property:
    """What objects are told apart by.

    Args:
        name: with the unit.
        values: ``[G]``, NaN where unknown.
        edges: of the bins, ascending; a bin holds its lower edge.
        labels: of the bins; None: they follow from the edges.
    """

    name: str
    values: np.ndarray
    edges: Sequence[float]
    labels: Sequence[str] | None = None

    def bins(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the label and the mask ``[G]`` of each bin."""
        for place, (low, high) in enumerate(zip(self.edges[:-1], self.edges[1:], strict=True)):
            label = _interval(low, high) if self.labels is None else self.labels[place]
            yield label, (self.values >= low) & (self.values < high)


@dataclass(frozen=True, eq=False)
class Objects:
    """Annotated objects that are scored, G of them.

    Args:
        sample: ``[G]`` int64, position of the frame.
        label: ``[G]`` int64.
        center: ``[G, 2]`` metres, in a frame that detections share.
        properties: what they are told apart by.
    """

    sample: np.ndarray
    label: np.ndarray
    center: np.ndarray
    properties: Sequence[Property]

    def __len__(self) -> int:
        return len(self.sample)


@dataclass(frozen=True, eq=False)
class Counted:
    """Detections that count, P of them.

    Args:
        sample: ``[P]`` int64, position of the frame.
        label: ``[P]`` int64.
        score: ``[P]``.
        center: ``[P, 2]`` metres.
        match: ``[P]`` int64, the object that a detection has, or ``NO_OBJECT``.
        causes: ``[P, 3]`` bool, which of the first three of ``KINDS`` could be said of it.
    """

    sample: np.ndarray
    label: np.ndarray
    score: np.ndarray
    center: np.ndarray
    match: np.ndarray
    causes: np.ndarray


@dataclass(frozen=True, eq=False)
class Analysis:
    """Objects and detections of all frames, and what became of them.

    Args:
        class_names: names of the labels.
        frames: the frames, in the order of ``sample``.
        objects: what there is to find.
        detections: those that count.
        thresholds: score of each class from which detections count; infinite where none is right.
        boxes: rows ``[N]`` of ``detections``, all of one frame, and the frame -> boxes in its LiDAR frame.
    """

    class_names: Sequence[str]
    frames: Sequence[Frame]
    objects: Objects
    detections: Counted
    thresholds: np.ndarray
    boxes: Callable[[np.ndarray, Frame], Boxes3D]

    @cached_property
    def found(self) -> np.ndarray:
        """Whether a detection has the object, ``[G]`` bool."""
        return np.isfinite(self.offset)

    @cached_property
    def offset(self) -> np.ndarray:
        """Metres ``[G]`` between an object and its detection seen from above, NaN where it has none."""
        offset, right = np.full(len(self.objects), np.nan), self.kind == RIGHT
        rows = self.detections.match[right]
        offset[rows] = np.linalg.norm(self.detections.center[right] - self.objects.center[rows], axis=1)
        return offset

    @cached_property
    def kind(self) -> np.ndarray:
        """Position in ``KINDS`` ``[P]``, ``RIGHT`` where the detection is right."""
        last = np.ones((len(self.detections.match), 1), bool)
        kinds = np.argmax(np.concatenate([self.detections.causes, last], axis=1), axis=1)
        return np.where(self.detections.match == NO_OBJECT, kinds, RIGHT)

    def mistakes(self) -> np.ndarray:
        """Return the number of missed objects and wrong detections in each frame ``[S]``."""
        missed = np.bincount(self.objects.sample[~self.found], minlength=len(self.frames))
        return missed + np.bincount(self.detections.sample[self.kind != RIGHT], minlength=len(self.frames))

    def recalls(self) -> Iterator[tuple[str, str, int, float, float]]:
        """Yield property, bin, objects in it, share of them that was found, mean offset of these in metres."""
        for each in self.objects.properties:
            for label, rows in each.bins():
                yield (each.name, label, *self._recall(rows))

    def classes(self) -> Iterator[tuple[str, float, int, float, float, list[int]]]:
        """Yield class, score threshold, objects, recall, mean offset, and the number of mistakes of each kind."""
        kind = self.kind
        for label, name in enumerate(self.class_names):
            kinds = kind[(self.detections.label == label) & (kind != RIGHT)]
            counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
            yield (name, float(self.thresholds[label]), *self._recall(self.objects.label == label), counts)

    def boxes_of(self, row: int) -> tuple[Boxes3D, np.ndarray]:
        """Return the boxes of the detections that count in a frame, in its LiDAR frame, and their rows."""
        rows = np.flatnonzero(self.detections.sample == row)
        return self.boxes(rows, self.frames[row]), rows

    def _recall(self, rows: np.ndarray) -> tuple[int, float, float]:
        offset = self.offset[rows]
        count, found = len(offset), np.isfinite(offset)
        return count, float(found.mean()) if count else np.nan, float(offset[found].mean()) if found.any() else np.nan


def best_score(
    scores: np.ndarray,  # [N]
    hits: np.ndarray,  # [N]
    detections: np.ndarray,  # [N]
    num_objects: int,
) -> float:
    """Return the score at which F1 = 2 hits / (detections + objects) is highest; infinite without a hit.

    Args:
        scores: where the curve is known; of equal F1 the first one is taken.
        hits: right ones among the detections that score at least as much.
        detections: all of these.
        num_objects: what there is to find.
    """
    if not hits.any():
        return np.inf
    return float(scores[(hits / (detections + num_objects)).argmax()])


def annotated_frames(keys: Sequence[Hashable], known: Mapping[Hashable, Frame]) -> list[Frame]:
    """Return the frames that results name, by the keys that the benchmark knows them by.

    Raises:
        ValueError: if one is not in the index, or is not annotated.
    """
    missing = [key for key in keys if key not in known]
    if missing:
        raise ValueError(f"{len(missing)} frames of the results are not in the index; the first is {missing[0]}")
    chosen = [known[key] for key in keys]
    bare = [frame.token for frame in chosen if frame.annotations is None]
    if bare:
        raise ValueError(f"{len(bare)} frames are not annotated; the first is {bare[0]}")
    return chosen


def _interval(low: float, high: float) -> str:
    return f"{low:g} and more" if np.isinf(high) else f"{low:g} to {high:g}"
