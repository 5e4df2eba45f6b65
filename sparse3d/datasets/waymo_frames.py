"""Waymo's records as `Frame`s: points and boxes are in the vehicle frame, which serves as the LiDAR frame.

frame's vehicle -> world -> vehicle at the exposure -> camera -> optical axes
earlier vehicle -> world -> frame's vehicle                                      lidar2key
speed along the axes of the world, turned into the vehicle                       velocity of a box
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..structures import Annotations, CameraImage, Frame, LidarScan, WaymoLabels
from .poses import invert_poses, quaternion_of, quaternion_product
from .waymo_records import CameraShot, FrameRecord, LabelTable
from .waymo_schema import CAMERA_NAMES, CATEGORIES, MAX_SWEEPS, POINT_COLUMNS

# Camera axes as Waymo has them (x out of the lens, y left, z up) -> optical axes (x right, y down, z forward).
OPTICAL = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def segment_frames(records: Sequence[FrameRecord]) -> Iterator[Frame]:
    """Yield the frames of a segment, whose records are in the order of time."""
    for number, record in enumerate(records):
        earlier = records[max(number - MAX_SWEEPS, 0) : number][::-1]
        yield Frame(
            token=frame_token(record),
            scene=record.segment,
            timestamp=record.timestamp,
            lidar=_scan(record, np.eye(4)),
            sweeps=tuple(_scan(sweep, invert_poses(record.pose) @ sweep.pose) for sweep in earlier),
            cameras=tuple(_camera(shot, record.pose) for shot in record.shots),
            lidar2ego=np.eye(4),
            ego2global=record.pose,
            annotations=None if record.labels is None else _annotations(record, record.labels),
            no_label_zones=record.no_label_zones,
        )


def frame_token(record: FrameRecord) -> str:
    """Return the name of a frame."""
    return f"{record.segment}/{record.timestamp}"


def _scan(record: FrameRecord, lidar2key: np.ndarray) -> LidarScan:
    return LidarScan(record.path, record.timestamp, lidar2key, len(POINT_COLUMNS), record.offset)


def _camera(shot: CameraShot, pose: np.ndarray) -> CameraImage:
    focal_u, focal_v, center_u, center_v = shot.intrinsic[:4]
    return CameraImage(
        name=CAMERA_NAMES[shot.camera],
        path=shot.path,
        timestamp=shot.timestamp,
        intrinsic=np.array([[focal_u, 0.0, center_u], [0.0, focal_v, center_v], [0.0, 0.0, 1.0]]),
        cam2ego=shot.extrinsic @ OPTICAL.T,
        ego2global=shot.pose,
        lidar2cam=OPTICAL @ invert_poses(shot.extrinsic) @ invert_poses(shot.pose) @ pose,
        width=shot.width,
        height=shot.height,
        distortion=shot.intrinsic[4:],
        offset=shot.offset,
    )


def _annotations(record: FrameRecord, labels: LabelTable) -> Annotations:
    turn = record.pose[:3, :3]
    velocities = (labels.speeds @ turn)[:, :2]
    half = labels.boxes[:, 6] / 2
    upright = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
    return Annotations(
        tokens=tuple(f"{frame_token(record)}/{each}" for each in labels.ids),
        instances=labels.ids,
        categories=tuple(CATEGORIES[kind] for kind in labels.types),
        attributes=("",) * len(labels),
        boxes=np.concatenate([labels.boxes, velocities], axis=1),
        num_lidar_points=labels.num_points,
        num_radar_points=np.zeros(len(labels), dtype=np.int64),
        global_centers=labels.boxes[:, :3] @ turn.T + record.pose[:3, 3],
        global_rotations=quaternion_product(quaternion_of(turn), upright),
        global_velocities=labels.speeds[:, :2],
        waymo=WaymoLabels(
            difficulties=labels.difficulties,
            tracking_difficulties=labels.tracking_difficulties,
            num_top_lidar_points=labels.num_top_points,
            speeds=labels.speeds,
            accelerations=labels.accelerations,
            most_visible_cameras=labels.cameras,
            camera_synced_boxes=labels.synced_boxes,
            keypoints=labels.keypoints,
            keypoint_visibility=labels.visibility,
        ),
    )
