"""A segment of v2 written as v1: what both formats hold, as `Frame` messages in a TFRecord file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sparse3d.datasets.protobuf_wire import write_data, write_double, write_integer, write_varint
from sparse3d.datasets.tfrecord import write_records
from sparse3d.datasets.waymo_parquet import LASER, TIMESTAMP
from sparse3d.datasets.waymo_records import FrameRecord, LabelTable
from sparse3d.datasets.waymo_schema import CAMERA_NAMES, TOP
from sparse3d.datasets.waymo_v2 import RETURNS, ParquetSegment
from sparse3d.structures.skeleton import KEYPOINT_TYPES, MISSING, OCCLUDED

ZONE = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def write_v1(segment: ParquetSegment, path: Path) -> None:
    records = segment.records(labelled=True)
    images = dict(segment.images())
    lasers = _range_images(segment)
    write_records(path, [_frame(segment, record, lasers[record.timestamp], images) for record in records])


def _range_images(segment: ParquetSegment) -> dict[int, dict[int, list[np.ndarray]]]:
    """Timestamp -> laser -> first return, second return, and for the top laser the poses of its cells."""
    names = [f"{name}.{part}" for name in RETURNS for part in ("values", "shape")]
    found: dict[int, dict[int, list[np.ndarray]]] = {}
    for _, row in segment.component("lidar").stream(TIMESTAMP, LASER, *names):
        found.setdefault(row.value(TIMESTAMP), {})[row.value(LASER)] = [row.image(name) for name in RETURNS]
    for _, row in segment.component("lidar_pose").stream(TIMESTAMP, *names[:2]):
        found[row.value(TIMESTAMP)][TOP].append(row.image(RETURNS[0]))
    return found


def _frame(segment: ParquetSegment, record: FrameRecord, lasers: dict, images: dict) -> bytes:
    return join(
        write_data(1, _context(segment, record)),
        write_integer(2, record.timestamp),
        write_data(3, _transform(record.pose)),
        *(write_data(4, _image(shot, images[shot.offset, shot.camera])) for shot in record.shots),
        *(write_data(5, _laser(number, parts)) for number, parts in lasers.items()),
        *(write_data(6, label) for label in _labels(record.labels)),
        write_data(7, join(packed(1, ZONE[:, 0]), *(write_double(2, y) for y in ZONE[:, 1]))),
        write_data(999, b"a field of a later version"),
    )


def _context(segment: ParquetSegment, record: FrameRecord) -> bytes:
    cameras = (
        join(
            write_integer(1, shot.camera),
            *(write_double(2, value) for value in shot.intrinsic),
            write_data(3, _transform(shot.extrinsic)),
            write_integer(4, shot.width),
            write_integer(5, shot.height),
        )
        for shot in record.shots
    )
    lasers = (
        join(
            write_integer(1, number),
            packed(2, laser.inclinations),
            write_double(3, laser.bounds[0]),
            write_double(4, laser.bounds[1]),
            write_data(5, _transform(laser.extrinsic)),
        )
        for number, laser in segment.lasers.items()
    )
    name = write_data(1, record.segment)
    return join(name, *(write_data(2, each) for each in cameras), *(write_data(3, each) for each in lasers))


def _image(shot, jpeg: bytes) -> bytes:
    return join(
        write_integer(1, shot.camera),
        write_data(2, jpeg),
        write_data(3, _transform(shot.pose)),
        write_double(5, shot.timestamp / 1e6),
    )


def _laser(number: int, parts: list[np.ndarray]) -> bytes:
    first, second, *poses = parts
    image = join(write_data(2, _matrix(first)), *(write_data(4, _matrix(pose)) for pose in poses))
    return join(write_integer(1, number), write_data(2, image), write_data(3, write_data(2, _matrix(second))))


def _matrix(values: np.ndarray) -> bytes:
    shape = b"".join(write_varint(side) for side in values.shape)
    data = write_data(1, values.astype("<f4").tobytes())
    return zlib.compress(data + write_data(2, write_data(1, shape)))


def _labels(labels: LabelTable) -> Iterator[bytes]:
    for row, name in enumerate(labels.ids):
        speed, acceleration = labels.speeds[row], labels.accelerations[row]
        motion = zip((1, 2, 5, 3, 4, 6), (*speed, *acceleration), strict=True)
        camera = labels.cameras[row]
        yield join(
            write_data(1, _box(labels.boxes[row])),
            write_data(2, join(*(write_double(number, value) for number, value in motion))),
            write_integer(3, int(labels.types[row])),
            write_data(4, name),
            write_integer(5, int(labels.difficulties[row])),
            write_integer(6, int(labels.tracking_difficulties[row])),
            write_integer(7, int(labels.num_points[row])),
            write_data(8, join(*_keypoints(labels.keypoints[row], labels.visibility[row]))),
            *([write_data(11, CAMERA_NAMES[camera]), write_data(12, _box(labels.synced_boxes[row]))] if camera else []),
            write_integer(13, int(labels.num_top_points[row])),
        )


def _box(box: np.ndarray) -> bytes:
    return join(*(write_double(number, value) for number, value in zip((1, 2, 3, 5, 4, 6, 7), box, strict=True)))


def _keypoints(locations: np.ndarray, visibility: np.ndarray) -> Iterator[bytes]:
    for kind, place, seen in zip(KEYPOINT_TYPES, locations, visibility, strict=True):
        if seen != MISSING:
            vector = join(*(write_double(axis, value) for axis, value in enumerate(place, start=1)))
            point = write_data(1, vector) + write_data(2, write_integer(1, seen == OCCLUDED))
            yield write_data(1, write_integer(1, kind) + write_data(2, point))


def _transform(matrix: np.ndarray) -> bytes:
    return join(*(write_double(1, value) for value in matrix.ravel()))


def packed(number: int, values: Iterable[float]) -> bytes:
    return write_data(number, np.asarray(values, dtype="<f8").tobytes())


def join(*parts: bytes) -> bytes:
    return b"".join(parts)
