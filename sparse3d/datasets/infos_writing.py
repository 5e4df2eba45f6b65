"""`Frame`s of nuScenes as mmdetection3d's info files (v1.1); the way back from `infos.py`.

What mmdetection3d 1.1 and later reads of a file (`Det3DDataset`, `NuScenesDataset`, `LoadPointsFromMultiSweeps`):

    bbox_3d         x, y, z, l, w, h, yaw in the LiDAR's frame, middle of the box; velocity beside it, NaN where unknown
    bbox_label_3d   position in `DETECTION_CLASSES`, -1 for objects of no class, which pipelines drop
    lidar_path      of key frames and of images the file's name alone, the folder is the data set's `data_prefix`;
                    of sweeps a path, since one that has "samples" in it is looked for among the key frames
    lidar2sensor    key-frame LiDAR -> LiDAR of the sweep
    timestamp       seconds
    instances       are there in unannotated files too, and empty

Objects of each camera's image (`cam_instances`), which only detectors of single images train on, are not written: an
index does not hold them. All values are plain Python numbers and text, so that any numpy can load the file.

What mmdetection3d has no place for stands in entries that it does not look at: the scene of a frame, the category and
the attribute of an object. `read_mmdet3d_infos` takes them up again.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..structures import Annotations, CameraImage, Frame, LidarScan
from ..whole_file import writing_whole
from .infos import INFO_VERSION
from .nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES, LIDAR_CHANNEL
from .poses import invert_poses

NO_CLASS = -1
LABELS = {category: DETECTION_CLASSES.index(name) for category, name in CATEGORY_TO_CLASS.items()}
PROTOCOL = 4  # read by every Python that mmdetection3d runs on


def write_mmdet3d_infos(
    path: str | os.PathLike, frames: Iterable[Frame], data_root: str | os.PathLike, version: str
) -> None:
    """Write frames of nuScenes to an info file; nothing stands at ``path`` until all of them are written.

    Args:
        path: the `.pkl` to write.
        frames: the frames in their order.
        data_root: folder that holds `samples/` and `sweeps/`.
        version: of nuScenes, e.g. ``"v1.0-trainval"``; mmdetection3d's metric reads that version's tables.

    Raises:
        ValueError: if a sensor file is not where nuScenes has it below ``data_root``.
    """
    root = Path(os.path.abspath(data_root))
    entries = [_entry(number, frame, root) for number, frame in enumerate(frames)]
    metainfo = {
        "categories": {name: label for label, name in enumerate(DETECTION_CLASSES)},
        "dataset": "nuscenes",
        "version": version,
        "info_version": INFO_VERSION,
    }
    with writing_whole(path) as partial, partial.open("wb") as file:
        pickle.dump({"metainfo": metainfo, "data_list": entries}, file, PROTOCOL)


def _entry(number: int, frame: Frame, root: Path) -> dict[str, Any]:
    entry = {
        "sample_idx": number,
        "token": frame.token,
        "scene": sys.intern(frame.scene),
        "timestamp": _seconds(frame.timestamp),
        "ego2global": frame.ego2global.tolist(),
        "lidar_points": {
            "lidar_path": _file_name(frame.lidar.path, LIDAR_CHANNEL, root),
            "num_pts_feats": frame.lidar.num_features,
            "lidar2ego": frame.lidar2ego.tolist(),
        },
        "images": {camera.name: _image(camera, root) for camera in frame.cameras},
        "instances": [] if frame.annotations is None else _instances(frame.annotations),
    }
    # mmdetection3d repeats the key frame where the entry is missing, not where it is empty.
    return {**entry, "lidar_sweeps": [_sweep(sweep, frame, root) for sweep in frame.sweeps]} if frame.sweeps else entry


def _image(camera: CameraImage, root: Path) -> dict[str, Any]:
    return {
        "img_path": _file_name(camera.path, camera.name, root),
        "timestamp": _seconds(camera.timestamp),
        "cam2img": camera.intrinsic.tolist(),
        "cam2ego": camera.cam2ego.tolist(),
        "lidar2cam": camera.lidar2cam.tolist(),
        "width": camera.width,
        "height": camera.height,
    }


def _sweep(sweep: LidarScan, frame: Frame, root: Path) -> dict[str, Any]:
    """The LiDAR is taken to be mounted as in the key frame, which in nuScenes holds for a whole scene."""
    return {
        "timestamp": _seconds(sweep.timestamp),
        "ego2global": (frame.lidar2global @ sweep.lidar2key @ invert_poses(frame.lidar2ego)).tolist(),
        "lidar_points": {
            "lidar_path": _below(sweep.path, root),
            "lidar2ego": frame.lidar2ego.tolist(),
            "lidar2sensor": invert_poses(sweep.lidar2key).tolist(),
        },
    }


def _instances(annotations: Annotations) -> list[dict[str, Any]]:
    labels = [LABELS.get(category, NO_CLASS) for category in annotations.categories]
    valid = annotations.num_lidar_points + annotations.num_radar_points > 0
    columns = {
        "bbox_3d": annotations.boxes[:, :7].tolist(),
        "bbox_3d_isvalid": valid.tolist(),
        "bbox_label": labels,
        "bbox_label_3d": labels,
        "velocity": annotations.boxes[:, 7:].tolist(),
        "num_lidar_pts": annotations.num_lidar_points.tolist(),
        "num_radar_pts": annotations.num_radar_points.tolist(),
        # A pickle stores text once where the objects are the same one.
        "category": [sys.intern(name) for name in annotations.categories],
        "attribute": [sys.intern(name) for name in annotations.attributes],
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _seconds(microseconds: int) -> float:
    return microseconds / 1e6


def _below(path: str, root: Path) -> str:
    try:
        return Path(os.path.abspath(path)).relative_to(root).as_posix()
    except ValueError:
        raise ValueError(f"{path} is not below the data root {root}; info files do not say where files are") from None


def _file_name(path: str, channel: str, root: Path) -> str:
    relative = Path(_below(path, root))
    if relative.parent != Path("samples", channel):
        raise ValueError(
            f"{path}: expected a file of samples/{channel}/, where mmdetection3d looks for the files of this sensor"
        )
    return relative.name
