"""Tables of people with keypoints, and the check of their contents.

Boxes and keypoints are in the vehicle frame, metres and radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from ..structures.skeleton import MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE
from .table import Table, not_finite, outside, reject

GROUPS = MappingProxyType(
    {
        "ALL": tuple(range(NUM_KEYPOINTS)),
        "HEAD": (0, 13),
        "SHOULDERS": (1, 2),
        "ELBOWS": (3, 4),
        "WRISTS": (5, 6),
        "HIPS": (7, 8),
        "KNEES": (9, 10),
        "ANKLES": (11, 12),
    }
)
OKS_SCALES = np.array([0.052, *np.repeat([0.158, 0.144, 0.124, 0.214, 0.174, 0.178], 2), 0.158])


@dataclass(frozen=True, eq=False)
class KeypointTable(Table):
    """People of many frames, one row a person.

    Args:
        sample: ``[N]`` int64, position of the frame.
        box: ``[N, 7]`` float32 ``(x, y, z, l, w, h, yaw)``.
        location: ``[N, 14, 3]`` float32, in the order of ``KEYPOINTS``; any finite numbers where missing.
        visibility: ``[N, 14]`` int64: ``MISSING``, ``OCCLUDED`` or ``VISIBLE``.
    """

    COLUMNS: ClassVar = {
        **Table.COLUMNS,
        "box": ((7,), np.float32),
        "location": ((NUM_KEYPOINTS, 3), np.float32),
        "visibility": ((NUM_KEYPOINTS,), np.int64),
    }

    box: np.ndarray
    location: np.ndarray
    visibility: np.ndarray

    @property
    def is_visible(self) -> np.ndarray:
        """``[N, 14]`` bool."""
        return self.visibility == VISIBLE

    @property
    def is_present(self) -> np.ndarray:
        """``[N, 14]`` bool: visible or occluded."""
        return self.visibility != MISSING

    @classmethod
    def absent(cls, rows: int) -> KeypointTable:
        """Return rows that say nothing: no size, no keypoint."""
        return cls(**{name: np.zeros((rows, *tail), dtype) for name, (tail, dtype) in cls.COLUMNS.items()})


def to_levels(visibility: np.ndarray) -> np.ndarray:
    """Return regressed visibilities, any numbers ``[N, 14]``, as levels int64: visible above 1, occluded above 0."""
    return np.where(visibility > OCCLUDED, VISIBLE, np.where(visibility > MISSING, OCCLUDED, MISSING)).astype(np.int64)


def check_keypoints(name: str, table: KeypointTable) -> None:
    """Check frames, boxes, locations and visibilities.

    Raises:
        ValueError: with ``name``, the column and the rows that are wrong.
    """
    reject(table.sample < 0, f"{name}.sample", "negative")
    reject(not_finite(table.box), f"{name}.box", "NaN or infinite")
    reject((table.box[:, 3:6] < 0).any(axis=1), f"{name}.box", "a negative size")
    reject(not_finite(table.location), f"{name}.location", "NaN or infinite")
    wrong = outside(table.visibility, MISSING, VISIBLE + 1).any(axis=1)
    reject(wrong, f"{name}.visibility", f"not in [{MISSING}, {VISIBLE}]")
