"""Suppression of boxes in images on a CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def suppress(
    start: int,
    stop: int,
    boxes: np.ndarray,  # [N, 4], group after group, in each the best first
    offsets: np.ndarray,  # [G + 1], where the groups begin
    threshold: float,
    keep: np.ndarray,  # [N] bool
) -> None:
    """Say for each box of some groups whether no kept better one covers it."""
    for group in range(start, stop):
        for one in range(offsets[group], offsets[group + 1]):
            keep[one] = True
            x1, y1, x2, y2 = boxes[one]
            area = (x2 - x1) * (y2 - y1)
            for other in range(offsets[group], one):
                if not keep[other]:
                    continue
                u1, v1, u2, v2 = boxes[other]
                width, height = min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1)
                if width <= 0 or height <= 0:
                    continue
                common = width * height
                if common / ((u2 - u1) * (v2 - v1) + area - common) > threshold:
                    keep[one] = False
                    break
