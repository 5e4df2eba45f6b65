"""Reading the points of Waymo's frames.

columns   x, y, z, intensity, elongation(, time lag)     intensity = tanh of what the laser says, as it has no bound
"""

from __future__ import annotations

import numpy as np

from ...registry import TRANSFORMS
from ...structures import LidarScan
from ..waymo_schema import POINT_COLUMNS
from .loading import LoadPoints

INTENSITY, ZONE = POINT_COLUMNS.index("intensity"), POINT_COLUMNS.index("no_label_zone")


@TRANSFORMS.register_module()
class LoadWaymoPoints(LoadPoints):
    """Set ``points`` ``[P, 5 or 6]`` float32: both returns of all five lasers, of the frame and of sweeps before it.

    With sweeps there is one more column, the time lag in seconds: 0 for the frame itself and growing with age. At the
    start of a segment there are fewer sweeps.

    Args:
        sweeps: frames before the frame to add, in its coordinates.
        intensity: ``"tanh"``, as published detectors have it, or ``"raw"``.
        no_label_zones: ``"keep"`` points of zones where nothing is labelled, or ``"drop"`` them.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or one of its values is not finite.

    Source: the input of DSVT and CenterPoint on Waymo.
    """

    def __init__(self, sweeps: int = 0, *, intensity: str = "tanh", no_label_zones: str = "keep") -> None:
        if intensity not in ("tanh", "raw") or no_label_zones not in ("keep", "drop"):
            raise ValueError(f"LoadWaymoPoints: unknown choice {intensity!r}, {no_label_zones!r}")
        super().__init__(len(POINT_COLUMNS), range(ZONE), sweeps, time_lag=sweeps > 0)
        self.squash = intensity == "tanh"
        self.drop = no_label_zones == "drop"

    def _read(self, scan: LidarScan) -> np.ndarray:
        points = super()._read(scan)
        if self.drop:
            points = points[points[:, ZONE] != 1]
        if self.squash:
            points[:, INTENSITY] = np.tanh(points[:, INTENSITY])
        return points
