"""Which ground is taken, at which time: nothing in the world may overlap.

Rectangles `(x, y, yaw, half length, half width)` that stand still are kept apart from tracks of moving ones. Two
rectangles overlap if no axis of either separates them (separating axis theorem).
"""

from __future__ import annotations

import numpy as np

CHECK_STEP = 2  # moving rectangles are compared at every second pose, 0.1 s apart


class Occupancy:
    """The rectangles placed so far.

    Args:
        margin: metres kept free around every rectangle.
    """

    def __init__(self, margin: float = 0.15) -> None:
        self.margin = margin
        self._still = np.zeros((0, 5))
        self._moving = np.zeros((0, 0, 5))

    def take_still(self, x: float, y: float, yaw: float, length: float, width: float) -> bool:
        """Take the ground of something that never moves; returns False and takes nothing if it is not free."""
        rectangle = np.array([x, y, yaw, length / 2 + self.margin, width / 2 + self.margin])
        if _overlap(rectangle, self._still).any() or _overlap(rectangle, self._moving).any():
            return False
        self._still = np.concatenate([self._still, rectangle[None]])
        return True

    def take_track(
        self,
        poses: np.ndarray,  # [T, 3], x, y, yaw
        length: float,
        width: float,
    ) -> bool:
        """Take the ground of something that moves; returns False and takes nothing if it is ever not free."""
        halves = np.broadcast_to([length / 2 + self.margin, width / 2 + self.margin], (len(poses), 2))
        track = np.concatenate([poses, halves], axis=1)[::CHECK_STEP]
        if _overlap(track[:, None], self._still[None]).any():
            return False
        if self._moving.size and _overlap(track[None], self._moving).any():
            return False
        self._moving = np.concatenate([self._moving.reshape(-1, *track.shape), track[None]])
        return True


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return which pairs of rectangles ``[..., 5]`` overlap; the leading axes broadcast."""
    if not second.size:
        return np.zeros(second.shape[:-1], dtype=bool)
    reach = np.hypot(first[..., 3], first[..., 4]) + np.hypot(second[..., 3], second[..., 4])
    near = np.hypot(first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]) < reach
    a = np.broadcast_to(first, (*near.shape, 5))[near]
    b = np.broadcast_to(second, (*near.shape, 5))[near]
    near[near] = _unseparated(a, b) & _unseparated(b, a)
    return near


def _unseparated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return which rectangles ``[P, 5]`` are separated by no axis of ``a``."""
    cos, sin = np.cos(a[:, 2]), np.sin(a[:, 2])
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    turn_cos, turn_sin = np.abs(np.cos(b[:, 2] - a[:, 2])), np.abs(np.sin(b[:, 2] - a[:, 2]))
    along = np.abs(dx * cos + dy * sin) < a[:, 3] + b[:, 3] * turn_cos + b[:, 4] * turn_sin
    across = np.abs(dy * cos - dx * sin) < a[:, 4] + b[:, 3] * turn_sin + b[:, 4] * turn_cos
    return along & across
