"""Frame: one immutable record of a data set's index, before anything is loaded.

Poses are 4x4 float64 and named `a2b` (frame a -> frame b). Paths are absolute. Timestamps are integer microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LidarScan:
    """One LiDAR revolution on disk."""

    path: str
    timestamp: int
    lidar2key: np.ndarray  # [4, 4], this scan's LiDAR -> LiDAR of the key frame (identity for the key frame itself)
    num_features: int = 5  # float32 values a point in the file


@dataclass(frozen=True)
class CameraImage:
    """One camera image on disk with its calibration."""

    name: str
    path: str
    timestamp: int
    intrinsic: np.ndarray  # [3, 3]
    cam2ego: np.ndarray  # [4, 4]
    ego2global: np.ndarray  # [4, 4], at the exposure of this camera
    lidar2cam: np.ndarray  # [4, 4], key-frame LiDAR -> this camera, ego motion between the two exposures included
    width: int
    height: int


@dataclass(frozen=True)
class Annotations:
    """Annotated objects of a frame, as the data set gives them.

    ``boxes`` is ``[N, 9]`` in the key-frame LiDAR frame (velocity NaN where unknown); the ``global_*`` arrays are the
    official records in the world frame, which metrics use: they keep roll, pitch and full precision.
    """

    tokens: tuple[str, ...]
    instances: tuple[str, ...]
    categories: tuple[str, ...]  # raw category names, e.g. "vehicle.car"
    attributes: tuple[str, ...]  # "" where there is none
    boxes: np.ndarray  # [N, 9] float64, (x, y, z, l, w, h, yaw, vx, vy)
    num_lidar_points: np.ndarray  # [N] int64
    num_radar_points: np.ndarray  # [N] int64
    global_centers: np.ndarray  # [N, 3] float64
    global_rotations: np.ndarray  # [N, 4] float64, quaternions (w, x, y, z)
    global_velocities: np.ndarray  # [N, 2] float64, NaN where unknown

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, mask: np.ndarray) -> Annotations:
        """Return the objects where ``mask`` ``[N]`` is true."""
        rows = np.flatnonzero(mask)
        return Annotations(**{each.name: _take(getattr(self, each.name), rows) for each in fields(self)})


def _take(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else tuple(values[row] for row in rows)


@dataclass(frozen=True)
class Frame:
    """One key frame: where its sensors' files are, where the sensors were, and what was annotated."""

    token: str
    scene: str
    timestamp: int
    lidar: LidarScan
    sweeps: tuple[LidarScan, ...]  # newest first
    cameras: tuple[CameraImage, ...]
    lidar2ego: np.ndarray  # [4, 4]
    ego2global: np.ndarray  # [4, 4], at the LiDAR's time
    annotations: Annotations | None

    @property
    def lidar2global(self) -> np.ndarray:
        """4x4, LiDAR -> world."""
        return self.ego2global @ self.lidar2ego

    def __deepcopy__(self, memo: dict) -> Frame:
        """Return itself: a frame never changes, and samples are copied often."""
        return self
