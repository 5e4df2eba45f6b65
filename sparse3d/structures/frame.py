"""Frame: one immutable record of a data set's index, before anything is loaded.

Poses are 4x4 float64 and named `a2b` (frame a -> frame b). Paths are absolute. Timestamps are integer microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LidarScan:
    """One LiDAR revolution on disk."""

    path: str
    timestamp: int
    lidar2key: np.ndarray  # [4, 4], this scan's LiDAR -> LiDAR of the key frame (identity for the key frame itself)
    num_features: int = 5  # values a point
    offset: int = 0  # byte where the scan begins in a file of many; Parquet files are searched by the timestamp


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
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))  # [5], k1, k2, p1, p2, k3 as OpenCV has them
    offset: int = 0  # where the image is in a file of many: a byte, or a row of a Parquet file


@dataclass(frozen=True)
class WaymoLabels:
    """What Waymo's labels say beyond those of other data sets, one row an object; NaN where they say nothing.

    Keypoints are in the order of ``KEYPOINTS`` of `skeleton.py`, in the frame of the boxes.
    """

    difficulties: np.ndarray  # [N] int64, level that an annotator gave for detection, 0 for none
    tracking_difficulties: np.ndarray  # [N] int64, likewise for tracking
    num_top_lidar_points: np.ndarray  # [N] int64
    speeds: np.ndarray  # [N, 3] float64, m/s along the axes of the world
    accelerations: np.ndarray  # [N, 3] float64, m/s^2 along the axes of the world
    most_visible_cameras: np.ndarray  # [N] int64, position in `CAMERAS` of `datasets/waymo_schema.py`, 0 for none
    camera_synced_boxes: np.ndarray  # [N, 7] float64, where that camera saw the object
    keypoints: np.ndarray  # [N, 14, 3] float64, metres
    keypoint_visibility: np.ndarray  # [N, 14] int64, 0 missing, 1 occluded, 2 visible

    def __len__(self) -> int:
        return len(self.difficulties)

    def select(self, rows: np.ndarray) -> WaymoLabels:
        """Return the objects at ``rows``, a mask ``[N]`` or positions."""
        return WaymoLabels(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


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
    visibilities: np.ndarray | None = None  # [N] int64, what cameras see: nuScenes' levels 1 to 4, 0 unknown
    waymo: WaymoLabels | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, mask: np.ndarray) -> Annotations:
        """Return the objects where ``mask`` ``[N]`` is true."""
        rows = np.flatnonzero(mask)
        return Annotations(**{each.name: _take(getattr(self, each.name), rows) for each in fields(self)})


def _take(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, WaymoLabels):
        return values.select(rows)
    if values is None or isinstance(values, np.ndarray):
        return values if values is None else values[rows]
    return tuple(values[row] for row in rows)


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
    no_label_zones: tuple[np.ndarray, ...] = ()  # polygons [K, 2] float64, x and y in the world

    @property
    def lidar2global(self) -> np.ndarray:
        """4x4, LiDAR -> world."""
        return self.ego2global @ self.lidar2ego

    def __deepcopy__(self, memo: dict) -> Frame:
        """Return itself: a frame never changes, and samples are copied often."""
        return self
