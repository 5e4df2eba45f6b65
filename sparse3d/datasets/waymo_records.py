"""What both formats of Waymo say about a frame, before it becomes a row of the index.

`waymo_v1.py` (TFRecord) and `waymo_v2.py` (Parquet) fill these in; `waymo_frames.py` makes frames of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..structures.skeleton import KEYPOINT_TYPES, MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE
from .waymo_schema import TYPES

KEYPOINT_OF_TYPE = {number: place for place, number in enumerate(KEYPOINT_TYPES)}


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The labelled objects of a frame, one row an object; NaN where a label says nothing.

    Everything is in the vehicle frame but speeds and accelerations, which are along the axes of the world.
    """

    ids: tuple[str, ...]
    types: np.ndarray  # [N] int64, positions in `TYPES`
    boxes: np.ndarray  # [N, 7] float64
    num_points: np.ndarray  # [N] int64
    num_top_points: np.ndarray  # [N] int64
    speeds: np.ndarray  # [N, 3] float64
    accelerations: np.ndarray  # [N, 3] float64
    difficulties: np.ndarray  # [N] int64, 0 for none
    tracking_difficulties: np.ndarray  # [N] int64, 0 for none
    cameras: np.ndarray  # [N] int64, 0 for none
    synced_boxes: np.ndarray  # [N, 7] float64
    keypoints: np.ndarray  # [N, 14, 3] float64
    visibility: np.ndarray  # [N, 14] int64

    def __post_init__(self) -> None:
        """Check that types are known and boxes are finite.

        Raises:
            ValueError: with the row and the object that are wrong.
        """
        unknown = (self.types < 0) | (self.types >= len(TYPES))
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(f"label {row} ({self.ids[row]}): unknown type {self.types[row]}, expected 0 to 4")
        broken = ~np.isfinite(self.boxes).all(axis=1)
        if broken.any():
            row = int(np.argmax(broken))
            raise ValueError(f"label {row} ({self.ids[row]}): its box is not finite: {self.boxes[row].tolist()}")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: np.ndarray) -> LabelTable:
        """Return the objects at positions ``rows``."""
        taken = {each.name: getattr(self, each.name)[rows] for each in fields(self) if each.name != "ids"}
        return LabelTable(tuple(self.ids[row] for row in rows), **taken)


@dataclass(frozen=True, eq=False)
class CameraShot:
    """One image with its calibration."""

    camera: int  # position in `CAMERA_NAMES`
    path: str
    offset: int  # where the image is in a file of many
    timestamp: int  # microseconds
    pose: np.ndarray  # [4, 4], vehicle -> world at the exposure
    intrinsic: np.ndarray  # [9]: f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3
    extrinsic: np.ndarray  # [4, 4], camera (x out of the lens, y left, z up) -> vehicle
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """One frame: where its scan is, the pose of the vehicle, images and labels."""

    segment: str
    timestamp: int  # microseconds
    path: str  # of the scan
    offset: int
    pose: np.ndarray  # [4, 4], vehicle -> world
    shots: tuple[CameraShot, ...]
    labels: LabelTable | None  # None where the split has none
    no_label_zones: tuple[np.ndarray, ...] = ()  # [K, 2] each, in the world


def skeleton_of(
    types: np.ndarray,  # [K]
    locations: np.ndarray,  # [K, 3]
    occluded: np.ndarray,  # [K] bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return an object's keypoints ``[14, 3]`` and their visibility ``[14]`` in the order of ``KEYPOINTS``.

    Keypoints that are not among those of the LiDAR labels (the forehead) are left out.
    """
    keypoints, visibility = np.full((NUM_KEYPOINTS, 3), np.nan), np.full(NUM_KEYPOINTS, MISSING)
    for number, location, hidden in zip(types.tolist(), locations, occluded, strict=True):
        if number in KEYPOINT_OF_TYPE:
            place = KEYPOINT_OF_TYPE[number]
            keypoints[place], visibility[place] = location, OCCLUDED if hidden else VISIBLE
    return keypoints, visibility


def empty_labels() -> LabelTable:
    """Return the labels of a frame without objects."""
    integers, triples = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    return LabelTable(
        ids=(),
        types=integers,
        boxes=np.zeros((0, 7)),
        num_points=integers,
        num_top_points=integers,
        speeds=triples,
        accelerations=triples,
        difficulties=integers,
        tracking_difficulties=integers,
        cameras=integers,
        synced_boxes=np.zeros((0, 7)),
        keypoints=np.zeros((0, NUM_KEYPOINTS, 3)),
        visibility=np.zeros((0, NUM_KEYPOINTS), dtype=np.int64),
    )
