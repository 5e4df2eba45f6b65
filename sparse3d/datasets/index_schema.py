"""The columns of an index, and the way from a `Frame` to a row and back.

Every change of the columns raises `INDEX_VERSION`.

A column is named after the field of the frame it holds: `sweeps.lidar2key` is the `lidar2key` of each of the `sweeps`.
Matrices are stored row by row as fixed-size lists of float64.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..structures import Annotations, CameraImage, Frame, LidarScan, WaymoLabels

INDEX_VERSION = 3


def _array(*shape: int) -> pa.DataType:
    return pa.list_(pa.float64(), int(np.prod(shape)))


SCAN = {
    "path": pa.string(),
    "timestamp": pa.int64(),
    "lidar2key": _array(4, 4),
    "num_features": pa.int64(),
    "offset": pa.int64(),
}
CAMERA = {
    "name": pa.string(),
    "path": pa.string(),
    "timestamp": pa.int64(),
    "intrinsic": _array(3, 3),
    "cam2ego": _array(4, 4),
    "ego2global": _array(4, 4),
    "lidar2cam": _array(4, 4),
    "width": pa.int64(),
    "height": pa.int64(),
    "distortion": _array(5),
    "offset": pa.int64(),
}
ANNOTATION = {
    "tokens": pa.string(),
    "instances": pa.string(),
    "categories": pa.string(),
    "attributes": pa.string(),
    "boxes": _array(9),
    "num_lidar_points": pa.int64(),
    "num_radar_points": pa.int64(),
    "global_centers": _array(3),
    "global_rotations": _array(4),
    "global_velocities": _array(2),
    "visibilities": pa.int64(),  # null where the data set does not say
}
WAYMO = {
    "difficulties": pa.int64(),
    "tracking_difficulties": pa.int64(),
    "num_top_lidar_points": pa.int64(),
    "speeds": _array(3),
    "accelerations": _array(3),
    "most_visible_cameras": pa.int64(),
    "camera_synced_boxes": _array(7),
    "keypoints": _array(14, 3),
    "keypoint_visibility": pa.list_(pa.int64(), 14),
}
SCHEMA = pa.schema(
    {
        "token": pa.string(),
        "scene": pa.string(),
        "timestamp": pa.int64(),
        "lidar2ego": _array(4, 4),
        "ego2global": _array(4, 4),
        **{f"lidar.{name}": kind for name, kind in SCAN.items()},
        **{f"sweeps.{name}": pa.list_(kind) for name, kind in SCAN.items()},
        **{f"cameras.{name}": pa.list_(kind) for name, kind in CAMERA.items()},
        "annotated": pa.bool_(),
        **{f"annotations.{name}": pa.list_(kind) for name, kind in ANNOTATION.items()},
        **{f"annotations.waymo.{name}": pa.list_(kind) for name, kind in WAYMO.items()},
        "no_label_zones": pa.list_(pa.list_(pa.float64())),
    }
)
SHAPES = {16: (4, 4), 9: (3, 3)}  # length of a stored matrix -> its shape; `boxes` are rows, and stay so
ROW_SHAPES = {"keypoints": (14, 3)}  # of what is not a number or a row of them an object


# -- Frame -> row -----------------------------------------------------------------------------------------------------


def encode_frames(frames: Sequence[Frame], data_root: Path) -> pa.RecordBatch:
    """Return frames as rows; paths become relative to ``data_root``.

    Raises:
        ValueError: if a path is not below ``data_root``.
    """
    rows = [_row(frame, os.path.join(os.path.abspath(data_root), "")) for frame in frames]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _row(frame: Frame, root: str) -> dict[str, Any]:
    return {
        "token": frame.token,
        "scene": frame.scene,
        "timestamp": frame.timestamp,
        "lidar2ego": frame.lidar2ego.ravel(),
        "ego2global": frame.ego2global.ravel(),
        **{f"lidar.{name}": _value(frame.lidar, name, root) for name in SCAN},
        **{f"sweeps.{name}": [_value(sweep, name, root) for sweep in frame.sweeps] for name in SCAN},
        **{f"cameras.{name}": [_value(camera, name, root) for camera in frame.cameras] for name in CAMERA},
        "annotated": frame.annotations is not None,
        **_annotation_columns(frame.annotations),
        "no_label_zones": [zone.ravel() for zone in frame.no_label_zones],
    }


def _value(record: LidarScan | CameraImage, name: str, root: str) -> Any:
    value = getattr(record, name)
    if name == "path":
        return _relative(value, root)
    return value.ravel() if isinstance(value, np.ndarray) else value


def _relative(path: str, root: str) -> str:
    absolute = os.path.abspath(path)
    if not absolute.startswith(root):
        raise ValueError(f"{path} is not below the data root {root}; an index stores paths relative to it")
    return absolute[len(root) :].replace(os.sep, "/")


def _annotation_columns(annotations: Annotations | None) -> dict[str, Any]:
    if annotations is None:
        return {}
    known = {name: getattr(annotations, name) for name in ANNOTATION}
    columns = {f"annotations.{name}": list(values) for name, values in known.items() if values is not None}
    if annotations.waymo is not None:
        columns |= {f"annotations.waymo.{name}": _rows(getattr(annotations.waymo, name)) for name in WAYMO}
    return columns


def _rows(values: np.ndarray) -> list:
    return [row.ravel() for row in values] if values.ndim > 1 else list(values)


# -- row -> Frame -----------------------------------------------------------------------------------------------------


def decode_frame(batch: pa.RecordBatch, row: int, data_root: Path) -> Frame:
    """Return row ``row`` of ``batch`` as a frame whose paths are below ``data_root``."""
    values = {name: _decode(batch.column(name)[row]) for name in SCHEMA.names}
    scans = _records(values, "sweeps", SCAN, data_root)
    return Frame(
        token=values["token"],
        scene=values["scene"],
        timestamp=values["timestamp"],
        lidar=LidarScan(**_absolute({name: values[f"lidar.{name}"] for name in SCAN}, data_root)),
        sweeps=tuple(LidarScan(**scan) for scan in scans),
        cameras=tuple(CameraImage(**camera) for camera in _records(values, "cameras", CAMERA, data_root)),
        lidar2ego=values["lidar2ego"],
        ego2global=values["ego2global"],
        annotations=_annotations(values) if values["annotated"] else None,
        no_label_zones=values["no_label_zones"],
    )


def _decode(value: pa.Scalar) -> Any:
    """Return text and integers as Python values, a matrix as an array, a list of numbers as one row an entry."""
    if isinstance(value, pa.FixedSizeListScalar):
        return _matrix(value.values.to_numpy())
    if not isinstance(value, pa.ListScalar) or not value.is_valid:
        return value.as_py()
    kind = value.type.value_type
    if pa.types.is_string(kind):
        return tuple(value.as_py())
    if pa.types.is_list(kind):
        return tuple(np.array(polygon.values).reshape(-1, 2) for polygon in value)
    if pa.types.is_fixed_size_list(kind):
        return np.array(value.values.flatten()).reshape(-1, kind.list_size)
    return np.array(value.values)


def _matrix(values: np.ndarray) -> np.ndarray:
    return values.reshape(SHAPES.get(values.size, (values.size,))).copy()


def _records(values: dict[str, Any], group: str, kinds: dict[str, pa.DataType], data_root: Path) -> list[dict]:
    """Turn the columns of a group into one dictionary a member."""
    columns = [_members(values[f"{group}.{name}"]) for name in kinds]
    return [_absolute(dict(zip(kinds, member, strict=True)), data_root) for member in zip(*columns, strict=True)]


def _members(column: Any) -> Any:
    if isinstance(column, np.ndarray):
        return column.tolist() if column.ndim == 1 else [_matrix(row) for row in column]
    return column


def _absolute(fields: dict[str, Any], data_root: Path) -> dict[str, Any]:
    return {**fields, "path": os.path.join(data_root, fields["path"])}


def _annotations(values: dict[str, Any]) -> Annotations:
    return Annotations(**{name: values[f"annotations.{name}"] for name in ANNOTATION}, waymo=_waymo_labels(values))


def _waymo_labels(values: dict[str, Any]) -> WaymoLabels | None:
    columns = {name: values[f"annotations.waymo.{name}"] for name in WAYMO}
    if columns["difficulties"] is None:
        return None
    shaped = {name: columns[name].reshape(-1, *shape) for name, shape in ROW_SHAPES.items()}
    return WaymoLabels(**{**columns, **shaped})
