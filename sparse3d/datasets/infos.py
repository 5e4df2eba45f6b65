"""mmdetection3d's info files (v1.1) as `Frame`s.

What the files lack is derived or stated as unknown: a camera's ego pose follows from `lidar2cam`; tokens of objects
are not recorded; scenes, attributes and raw categories are in files of `infos_writing.py` alone (elsewhere a category
is the name of its class, or "other"); image sizes are nuScenes' 1600 x 900 unless the file gives them. Boxes keep the
geometric centre that the files hold. The converter's matrices have float32 precision.

    lidar2key of a sweep = inverse of its `lidar2sensor`: p_key = R^T (p_sweep - t)

Early files have no `lidar2sensor`; there it follows from the two poses in the world.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Annotations, Boxes3D, CameraImage, Frame, LidarScan
from .nuscenes_schema import LIDAR_CHANNEL
from .plain_pickle import load_plain_pickle
from .poses import invert_poses, quaternion_of, quaternion_product
from .waymo_infos import waymo_info_frames

INFO_VERSION = "1.1"
OTHER = "other"
UNANNOTATED = "v1.0-test"  # its objects are secret, which files do not tell from there being none
WAYMO = "waymo"  # metainfo of files with another layout, see `waymo_infos.py`
IMAGE_SIZE = (1600, 900)  # width, height

PathOf = Callable[[str, str, str], str]  # (folder, channel, file name) -> absolute path


def read_mmdet3d_infos(path: str | os.PathLike, data_root: str | os.PathLike) -> list[Frame]:
    """Read an info file; only plain data is unpickled.

    Files are looked for in ``samples/<CHANNEL>/`` and ``sweeps/<CHANNEL>/`` below ``data_root``, or beside the pickle
    where the first frame's LiDAR file is there and not in the data root.

    Args:
        path: the `.pkl`.
        data_root: folder that holds `samples/` and `sweeps/`.

    Returns:
        One frame an entry of its `data_list`, in their order.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if the pickle holds something other than plain data.
        ValueError: if it is damaged, or no info file of v1.1.
    """
    return info_frames(path, load_mmdet3d_infos(path), data_root)


def load_mmdet3d_infos(path: str | os.PathLike) -> dict[str, Any]:
    """Return what an info file holds, ``metainfo`` and ``data_list``; only plain data is unpickled.

    Raises: as ``read_mmdet3d_infos``, whose first half this is.
    """
    contents = load_plain_pickle(path)
    if not isinstance(contents, dict) or not {"metainfo", "data_list"} <= set(contents):
        raise ValueError(
            f"{path}: no info file of mmdetection3d v1.1 (a dict with metainfo and data_list); "
            "older ones are converted by mmdetection3d's tools/dataset_converters/update_infos_to_v2.py"
        )
    return contents


def info_frames(path: str | os.PathLike, contents: Mapping[str, Any], data_root: str | os.PathLike) -> list[Frame]:
    """Return the frames of what ``load_mmdet3d_infos`` returned; arguments and errors as of ``read_mmdet3d_infos``."""
    metainfo, entries = contents["metainfo"], contents["data_list"]
    if metainfo.get("dataset") == WAYMO:
        return _waymo_frames(path, entries, Path(data_root))
    _check_version(path, metainfo)
    names = _class_names(path, metainfo)
    if metainfo.get("version") == UNANNOTATED:
        entries = [{key: value for key, value in entry.items() if key != "instances"} for entry in entries]
    path_of = _layout(Path(path), Path(data_root), entries)
    return [_entry_frame(path, number, entry, names, path_of) for number, entry in enumerate(entries)]


def _waymo_frames(path: str | os.PathLike, entries: Sequence[Mapping[str, Any]], data_root: Path) -> list[Frame]:
    try:
        return waymo_info_frames(entries, data_root.absolute())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def _check_version(path: str | os.PathLike, metainfo: Mapping[str, Any]) -> None:
    version = metainfo.get("info_version")
    if version is None:
        warnings.warn(
            f"{path} does not state its info_version; its boxes are taken for those of v1.1 (l, w, h, yaw "
            "counter-clockwise from +x), but files of that kind exist whose boxes follow an older convention",
            stacklevel=4,
        )
    elif str(version) != INFO_VERSION:
        raise ValueError(f"{path}: info_version {version}, expected {INFO_VERSION}")


def _class_names(path: str | os.PathLike, metainfo: Mapping[str, Any]) -> dict[int, str]:
    """Return label -> class name; early files list the classes in order, later ones map names to labels.

    All names that take no part in detection share the label -1, so that none of them can be told from it.
    """
    categories = metainfo.get("categories", metainfo.get("CLASSES"))
    if categories is None:
        raise ValueError(f"{path}: metainfo names no categories")
    if isinstance(categories, Mapping):
        return {int(label): name for name, label in categories.items() if label >= 0}
    return dict(enumerate(categories))


def _layout(path: Path, data_root: Path, entries: Sequence[Mapping[str, Any]]) -> PathOf:
    """Return where files are: in the data root, or beside the pickle."""
    root, beside = data_root.absolute(), path.absolute().parent
    key_names = {os.path.basename(entry["lidar_points"]["lidar_path"]) for entry in entries}

    def in_root(folder: str, channel: str, name: str) -> str:
        # A sweep can be the key frame before; then its file is among the samples.
        is_sample = os.path.basename(name) in key_names or "samples" in Path(name).parts
        return str(root / ("samples" if is_sample else folder) / channel / os.path.basename(name))

    def flat(folder: str, channel: str, name: str) -> str:
        return str(beside / os.path.basename(name))

    if not entries:
        return in_root
    first = ("samples", LIDAR_CHANNEL, entries[0]["lidar_points"]["lidar_path"])
    return flat if os.path.isfile(flat(*first)) and not os.path.isfile(in_root(*first)) else in_root


def _entry_frame(
    path: str | os.PathLike, number: int, entry: Mapping[str, Any], names: Mapping[int, str], path_of: PathOf
) -> Frame:
    try:
        return _frame(entry, names, path_of)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: entry {number}: {type(error).__name__}: {error}") from error


def _frame(entry: Mapping[str, Any], names: Mapping[int, str], path_of: PathOf) -> Frame:
    lidar = entry["lidar_points"]
    lidar2ego, ego2global = _pose(lidar["lidar2ego"]), _pose(entry["ego2global"])
    lidar2global = ego2global @ lidar2ego
    timestamp = _microseconds(entry["timestamp"])
    num_features = int(lidar["num_pts_feats"])
    return Frame(
        token=entry["token"],
        scene=entry.get("scene", ""),
        timestamp=timestamp,
        lidar=LidarScan(path_of("samples", LIDAR_CHANNEL, lidar["lidar_path"]), timestamp, np.eye(4), num_features),
        sweeps=tuple(_sweep(sweep, lidar2global, num_features, path_of) for sweep in entry.get("lidar_sweeps", ())),
        cameras=tuple(_camera(name, image, lidar2global, path_of) for name, image in entry.get("images", {}).items()),
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        annotations=_annotations(entry["instances"], names, lidar2global) if "instances" in entry else None,
    )


def _pose(matrix: Any) -> np.ndarray:
    pose = np.array(matrix, dtype=np.float64)
    if pose.shape != (4, 4):
        raise ValueError(f"expected a 4x4 pose, got shape {pose.shape}")
    return pose


def _microseconds(seconds: float) -> int:
    return round(float(seconds) * 1e6)


def _sweep(sweep: Mapping[str, Any], key2global: np.ndarray, num_features: int, path_of: PathOf) -> LidarScan:
    lidar = sweep["lidar_points"]
    if "lidar2sensor" in lidar:
        lidar2key = invert_poses(_pose(lidar["lidar2sensor"]))
    else:
        lidar2key = invert_poses(key2global) @ _pose(sweep["ego2global"]) @ _pose(lidar["lidar2ego"])
    return LidarScan(
        path=path_of("sweeps", LIDAR_CHANNEL, lidar["lidar_path"]),
        timestamp=_microseconds(sweep["timestamp"]),
        lidar2key=lidar2key,
        num_features=num_features,
    )


def _camera(name: str, image: Mapping[str, Any], lidar2global: np.ndarray, path_of: PathOf) -> CameraImage:
    cam2ego, lidar2cam = _pose(image["cam2ego"]), _pose(image["lidar2cam"])
    return CameraImage(
        name=name,
        path=path_of("samples", name, image["img_path"]),
        timestamp=_microseconds(image["timestamp"]),
        intrinsic=np.array(image["cam2img"], dtype=np.float64)[:3, :3],
        cam2ego=cam2ego,
        ego2global=lidar2global @ invert_poses(lidar2cam) @ invert_poses(cam2ego),
        lidar2cam=lidar2cam,
        width=int(image.get("width", IMAGE_SIZE[0])),
        height=int(image.get("height", IMAGE_SIZE[1])),
    )


def _annotations(
    instances: Sequence[Mapping[str, Any]], names: Mapping[int, str], lidar2global: np.ndarray
) -> Annotations:
    boxes = _column(instances, "bbox_3d", 7)
    velocities = _column(instances, "velocity", 2)
    centers, _, yaw_turns, _ = Boxes3D(boxes).to_nuscenes()
    turn = lidar2global[:3, :3]
    unknown = ("",) * len(instances)
    return Annotations(
        tokens=unknown,
        instances=unknown,
        categories=tuple(
            instance.get("category") or names.get(int(instance["bbox_label_3d"]), OTHER) for instance in instances
        ),
        attributes=tuple(instance.get("attribute", "") for instance in instances),
        boxes=np.concatenate([boxes, velocities], axis=1),
        num_lidar_points=np.array([instance["num_lidar_pts"] for instance in instances], dtype=np.int64),
        num_radar_points=np.array([instance["num_radar_pts"] for instance in instances], dtype=np.int64),
        global_centers=centers @ turn.T + lidar2global[:3, 3],
        global_rotations=quaternion_product(quaternion_of(turn), yaw_turns),
        global_velocities=velocities @ turn[:2, :2].T,
    )


def _column(instances: Sequence[Mapping[str, Any]], name: str, width: int) -> np.ndarray:
    """Return ``[N, width]`` float64."""
    rows = np.array([instance[name] for instance in instances], dtype=np.float64)
    if instances and rows.shape != (len(instances), width):
        raise ValueError(f"{name} must have {width} numbers an instance, got shape {rows.shape}")
    return rows.reshape(-1, width)
