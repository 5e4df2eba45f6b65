"""Other frames of a scene, found by their timestamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..structures import Frame
from .index import FrameIndex


class History:
    """Finds the frames that were recorded certain times before a frame, or after it, in the same scene.

    Frames may be missing or come in any order: what counts is when they were recorded.

    Args:
        frames: all frames of the index.
        ages: seconds before the frame, in the order in which the frames are wanted, e.g. ``(0.5, 1.0)``; negative ones
            lie after it.

    Raises:
        ValueError: if an age is 0 or given twice.
    """

    def __init__(self, frames: Sequence[Frame], ages: Sequence[float]) -> None:
        if 0 in ages or len(set(ages)) != len(ages):
            raise ValueError(f"past: expected ages in seconds, none of them 0 or given twice, got {tuple(ages)}")
        self.ages = np.asarray(ages, dtype=np.float64) * 1e6
        scenes, self._timestamps = scenes_and_timestamps(frames)
        self._order = np.lexsort((self._timestamps, scenes))
        self._place = np.argsort(self._order)
        self._sorted = self._timestamps[self._order]
        changes = np.flatnonzero(np.diff(scenes[self._order])) + 1
        starts = np.concatenate([[0], changes])
        lengths = np.diff(np.concatenate([starts, [len(scenes)]]))
        self._start = np.repeat(starts, lengths)
        self._end = np.repeat(starts + lengths, lengths)

    def rows(self, row: int) -> list[int]:
        """Return the row of the frame that comes closest to each age before (after) frame ``row``.

        It is never on the other side of the frame, nor the frame itself if there is another one. Where the scene does
        not reach so far, its first (last) frame stands in, and for that frame it is itself, as published pipelines
        have it.
        """
        place = int(self._place[row])
        before = np.arange(self._start[place], max(place, self._start[place] + 1))
        after = np.arange(min(place + 1, self._end[place] - 1), self._end[place])
        wanted = self._timestamps[row] - self.ages
        return [
            int(self._order[nearest(self._sorted, before if age > 0 else after, time)])
            for age, time in zip(self.ages, wanted, strict=True)
        ]


def nearest(timestamps: np.ndarray, candidates: np.ndarray, wanted: float) -> int:
    """Return the candidate whose time ``timestamps[candidate]`` is nearest to ``wanted``, the first of two alike."""
    return int(candidates[np.abs(timestamps[candidates] - wanted).argmin()])


def scenes_and_timestamps(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each frame's scene and its timestamp in microseconds, ``[F]`` int64 each."""
    if isinstance(frames, FrameIndex):
        names, timestamps = frames.scenes_and_timestamps()
    else:
        names = np.array([frame.scene for frame in frames], dtype=str)
        timestamps = np.array([frame.timestamp for frame in frames], dtype=np.int64)
    return np.unique(names, return_inverse=True)[1].reshape(-1), timestamps
