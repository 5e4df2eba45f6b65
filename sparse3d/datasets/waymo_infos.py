"""mmdetection3d's info files of Waymo (its converter to KITTI's layout) as `Frame`s.

Boxes have the middle of their bottom as centre there; half of the height takes it to the middle. What the files lack is
unknown: speeds, difficulties, keypoints, ids (an object is named by its group), points of the top laser (those of all
count), distortion of lenses, the vehicle's motion between scan and image. Points in no-label zones are gone.

    <root>/training, testing/velodyne/*.bin, image_0 to image_4/*.jpg
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Frame
from ..structures.skeleton import MISSING, NUM_KEYPOINTS
from .poses import invert_poses
from .waymo_frames import OPTICAL, segment_frames
from .waymo_records import CameraShot, FrameRecord, LabelTable
from .waymo_schema import CAMERA_NAMES, CATEGORIES

LABELS = ("Vehicle", "Pedestrian", "Cyclist")  # the converter calls the first Car
CAMERA_PREFIX = "CAM_"
TEST_SAMPLES = 2_000_000  # sample_idx of the test split begin here
CENTER_Z, HEIGHT = 2, 5


def waymo_info_frames(entries: Sequence[Mapping[str, Any]], data_root: Path) -> list[Frame]:
    """Return a frame an entry of `data_list`, in their order; sweeps are the entries before, of the same segment.

    Raises:
        KeyError, TypeError, ValueError: if an entry lacks something.
    """
    records = [_record(entry, data_root) for entry in entries]
    segments: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        segments.setdefault(record.segment, []).append(number)
    frames: dict[int, Frame] = {}
    for numbers in segments.values():
        in_time = sorted(numbers, key=lambda number: records[number].timestamp)
        frames.update(zip(in_time, segment_frames([records[number] for number in in_time]), strict=True))
    return [frames[number] for number in range(len(records))]


def _record(entry: Mapping[str, Any], data_root: Path) -> FrameRecord:
    folder = data_root / ("testing" if entry["sample_idx"] >= TEST_SAMPLES else "training")
    pose = np.array(entry["ego2global"], dtype=np.float64)
    timestamp = int(entry["timestamp"])
    images = {CAMERA_NAMES.index(name.removeprefix(CAMERA_PREFIX)): image for name, image in entry["images"].items()}
    return FrameRecord(
        segment=entry["context_name"],
        timestamp=timestamp,
        path=str(folder / "velodyne" / entry["lidar_points"]["lidar_path"]),
        offset=0,
        pose=pose,
        shots=tuple(_shot(camera, image, folder, timestamp, pose) for camera, image in sorted(images.items())),
        labels=_labels(entry["instances"], entry["cam_sync_instances"]) if "instances" in entry else None,
    )


def _shot(camera: int, image: Mapping[str, Any], folder: Path, timestamp: int, pose: np.ndarray) -> CameraShot:
    intrinsic = np.array(image["cam2img"], dtype=np.float64)
    lidar2cam = np.array(image["lidar2cam"], dtype=np.float64)
    return CameraShot(
        camera=camera,
        path=str(folder / f"image_{camera - 1}" / image["img_path"]),
        offset=0,
        timestamp=timestamp,
        pose=pose,
        intrinsic=np.array([intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2], 0, 0, 0, 0, 0]),
        extrinsic=invert_poses(lidar2cam) @ OPTICAL,
        width=int(image["width"]),
        height=int(image["height"]),
    )


def _labels(instances: Sequence[Mapping[str, Any]], synced: Sequence[Mapping[str, Any]]) -> LabelTable:
    count = len(instances)
    zeros, unknown = np.zeros(count, dtype=np.int64), np.full((count, 3), np.nan)
    seen = {each["group_id"]: _box(each) for each in synced}
    nowhere = np.full(7, np.nan)
    points = np.array([each["num_lidar_pts"] for each in instances], dtype=np.int64)
    cameras = [each["camera_id"] + 1 if each["group_id"] in seen else 0 for each in instances]
    return LabelTable(
        ids=tuple(str(each["group_id"]) for each in instances),
        types=np.array([CATEGORIES.index(LABELS[each["bbox_label_3d"]]) for each in instances], dtype=np.int64),
        boxes=np.array([_box(each) for each in instances]).reshape(-1, 7),
        num_points=points,
        num_top_points=points,
        speeds=unknown,
        accelerations=unknown,
        difficulties=zeros,
        tracking_difficulties=zeros,
        cameras=np.array(cameras, dtype=np.int64),
        synced_boxes=np.array([seen.get(each["group_id"], nowhere) for each in instances]).reshape(-1, 7),
        keypoints=np.full((count, NUM_KEYPOINTS, 3), np.nan),
        visibility=np.full((count, NUM_KEYPOINTS), MISSING),
    )


def _box(instance: Mapping[str, Any]) -> np.ndarray:
    """Return ``(x, y, z, l, w, h, yaw)`` with z in the middle."""
    box = np.array(instance["bbox_3d"], dtype=np.float64)
    if box.shape != (7,):
        raise ValueError(f"bbox_3d must have 7 numbers, got shape {box.shape}")
    box[CENTER_Z] += box[HEIGHT] / 2
    return box
