"""Earlier frames of a scene, found by their timestamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..structures import Frame
from .index import FrameIndex


class History:
    """Finds the frames that were recorded certain times before a frame, in the same scene.

    Frames may be missing or come in any order: what counts is when they were recorded.

    Args:
        frames: all frames of the index.
        ages: seconds before the frame, ascending, e.g. ``(0.5, 1.0)``.

    Raises:
        ValueError: if the ages are not positive and ascending.
    """

    def __init__(self, frames: Sequence[Frame], ages: Sequence[float]) -> None:
        if any(age <= 0 for age in ages) or list(ages) != sorted(set(ages)):
            raise ValueError(f"past: expected ascending, positive ages in seconds, got {tuple(ages)}")
        self.ages = np.asarray(ages, dtype=np.float64) * 1e6
        scenes, self._timestamps = scenes_and_timestamps(frames)
        self._order = np.lexsort((self._timestamps, scenes))
        self._place = np.argsort(self._order)
        self._sorted = self._timestamps[self._order]
        changes = np.flatnonzero(np.diff(scenes[self._order])) + 1
        starts = np.concatenate([[0], changes])
        lengths = np.diff(np.concatenate([starts, [len(scenes)]]))
        self._start = np.repeat(starts, lengths)

    def rows(self, row: int) -> list[int]:
        """Return the row of the frame that comes closest to each age before frame ``row``.

        It is never later than the frame itself. Where the scene does not reach back so far, its first frame stands in,
        and for the first frame it is that frame itself, as published pipelines have it.
        """
        place = int(self._place[row])
        start = int(self._start[place])
        earlier = self._sorted[start : place + 1]
        last = max(len(earlier) - 2, 0)  # a frame is its own past only if there is no other
        wanted = self._timestamps[row] - self.ages
        after = np.clip(np.searchsorted(earlier, wanted), 0, last)
        before = np.maximum(after - 1, 0)
        nearer = np.where(np.abs(earlier[before] - wanted) <= np.abs(earlier[after] - wanted), before, after)
        return [int(self._order[start + found]) for found in nearer]


def scenes_and_timestamps(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each frame's scene and its timestamp in microseconds, ``[F]`` int64 each."""
    if isinstance(frames, FrameIndex):
        names, timestamps = frames.scenes_and_timestamps()
    else:
        names = np.array([frame.scene for frame in frames], dtype=str)
        timestamps = np.array([frame.timestamp for frame in frames], dtype=np.int64)
    return np.unique(names, return_inverse=True)[1].reshape(-1), timestamps
