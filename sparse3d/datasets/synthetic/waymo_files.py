"""The Parquet files of one synthetic segment, in the layout of the Waymo Open Dataset v2.

Column names and types are those of published files, the joined key `index` with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..waymo_parquet import CAMERA, LASER, OBJECT, SEGMENT, TIMESTAMP, full_name

COMPRESSION, LEVEL = "brotli", 1
FRAMES_PER_ROW_GROUP = 5
MATRIX, SHAPE = pa.list_(pa.float64(), 16), pa.list_(pa.int32(), 3)
IMAGE = {"values": pa.list_(pa.float32()), "shape": SHAPE}
FRAME_KEYS = {SEGMENT: pa.string(), TIMESTAMP: pa.int64()}
OBJECT_KEYS = {**FRAME_KEYS, OBJECT: pa.string()}


def _vector(name: str, axes: str = "xyz") -> dict[str, pa.DataType]:
    return {f"{name}.{axis}": pa.float64() for axis in axes}


def _box(name: str) -> dict[str, pa.DataType]:
    return {**_vector(f"{name}.center"), **_vector(f"{name}.size"), f"{name}.heading": pa.float64()}


def _range_images(*returns: int) -> dict[str, pa.DataType]:
    return {f"range_image_return{each}.{name}": kind for each in returns for name, kind in IMAGE.items()}


INTRINSIC = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
FIELDS: Mapping[str, Mapping[str, pa.DataType]] = {
    "vehicle_pose": {**FRAME_KEYS, "world_from_vehicle.transform": MATRIX},
    "lidar": {**FRAME_KEYS, LASER: pa.int8(), **_range_images(1, 2)},
    "lidar_pose": {**FRAME_KEYS, LASER: pa.int8(), **_range_images(1)},
    "lidar_calibration": {
        SEGMENT: pa.string(),
        LASER: pa.int8(),
        "extrinsic.transform": MATRIX,
        "beam_inclination.min": pa.float64(),
        "beam_inclination.max": pa.float64(),
        "beam_inclination.values": pa.list_(pa.float64()),
    },
    "lidar_box": {
        **OBJECT_KEYS,
        **_box("box"),
        "type": pa.int8(),
        "num_lidar_points_in_box": pa.int64(),
        "num_top_lidar_points_in_box": pa.int64(),
        **_vector("speed"),
        **_vector("acceleration"),
        "difficulty_level.detection": pa.int8(),
        "difficulty_level.tracking": pa.int8(),
    },
    "lidar_camera_synced_box": {**OBJECT_KEYS, "most_visible_camera_name": pa.int8(), **_box("camera_synced_box")},
    "lidar_hkp": {
        **OBJECT_KEYS,
        "lidar_keypoints[*].type": pa.list_(pa.int8()),
        **{f"lidar_keypoints[*].keypoint_3d.location_m.{axis}": pa.list_(pa.float64()) for axis in "xyz"},
        "lidar_keypoints[*].keypoint_3d.visibility.is_occluded": pa.list_(pa.bool_()),
    },
    "camera_image": {
        **FRAME_KEYS,
        CAMERA: pa.int8(),
        "image": pa.binary(),
        "pose.transform": MATRIX,
        "pose_timestamp": pa.float64(),
    },
    "camera_calibration": {
        SEGMENT: pa.string(),
        CAMERA: pa.int8(),
        **{f"intrinsic.{name}": pa.float64() for name in INTRINSIC},
        "extrinsic.transform": MATRIX,
        "width": pa.int32(),
        "height": pa.int32(),
        "rolling_shutter_direction": pa.int8(),
    },
}


class SegmentFiles:
    """Writes the components of a segment, some frames at a time.

    Args:
        folder: the split's folder.
        segment: name of the segment.
    """

    def __init__(self, folder: Path, segment: str) -> None:
        self.segment = segment
        self._rows: dict[str, list[dict[str, Any]]] = {tag: [] for tag in FIELDS}
        self._writers = {}
        for tag, fields in FIELDS.items():
            (folder / tag).mkdir(parents=True, exist_ok=True)
            schema = pa.schema({"index": pa.string(), **{full_name(tag, name): kind for name, kind in fields.items()}})
            path = folder / tag / f"{segment}.parquet"
            self._writers[tag] = pq.ParquetWriter(path, schema, compression=COMPRESSION, compression_level=LEVEL)

    def add(self, tag: str, row: Mapping[str, Any]) -> None:
        """Add a row, whose entries are fields of ``FIELDS``; those that are missing are null."""
        keyed = {SEGMENT: self.segment, **row}
        index = ";".join(str(keyed[name]) for name in FIELDS[tag] if name.startswith("key."))
        self._rows[tag].append({"index": index, **{full_name(tag, name): value for name, value in keyed.items()}})

    def flush(self) -> None:
        """Write what was added as a row group of each file."""
        for tag, rows in self._rows.items():
            if rows:
                writer = self._writers[tag]
                writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
                rows.clear()

    def __enter__(self) -> SegmentFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if kind is None:
            self.flush()
        for writer in self._writers.values():
            writer.close()


def box_fields(name: str, box: Any) -> dict[str, float]:
    """Return the fields of a box ``[7]``."""
    return dict(zip(_box(name), (float(value) for value in box), strict=True))
