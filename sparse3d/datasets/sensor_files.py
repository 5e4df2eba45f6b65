"""Reading a scan or an image wherever it lies: in a file of its own, in a packed file, in Waymo's files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..structures import CameraImage, LidarScan
from . import packed_file
from .waymo_schema import CAMERA_NAMES
from .waymo_v1 import RecordSegment
from .waymo_v2 import segment_of

PARQUET, RECORDS = ".parquet", ".tfrecord"
MOVED_HINT = "if the data moved, pass the new data_root"


def read_scan(scan: LidarScan) -> np.ndarray:
    """Return the points ``[P, num_features]`` float32 of a scan.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is damaged, or not of as many features.
    """
    suffix = Path(scan.path).suffix
    if suffix in packed_file.POINT_TYPES:
        return packed_file.read_packed_points(scan.path, scan.offset, scan.num_features)
    if suffix == PARQUET:
        return segment_of(scan.path).scan(scan.timestamp)
    if suffix == RECORDS:
        return RecordSegment(Path(scan.path)).scan(scan.offset)
    return read_raw_points(scan.path, scan.num_features)


def read_raw_points(path: str | os.PathLike, num_features: int) -> np.ndarray:
    """Return the points ``[P, num_features]`` of a file that holds nothing but float32 values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its size is no whole number of points.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such LiDAR file; {MOVED_HINT}")
    size, point_size = os.path.getsize(path), 4 * num_features
    if size % point_size:
        raise ValueError(
            f"{path}: {size} bytes are no whole number of points of {num_features} float32; is it cut off?"
        )
    return np.fromfile(path, dtype=np.float32).reshape(-1, num_features)


def read_encoded_image(camera: CameraImage) -> np.ndarray:
    """Return the bytes ``[N]`` uint8 of an image as it is encoded.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is damaged, or there is no such image in it.
    """
    suffix = Path(camera.path).suffix
    if suffix == packed_file.IMAGES:
        return packed_file.read_block(camera.path, camera.offset)
    if suffix == PARQUET:
        return np.frombuffer(segment_of(camera.path).image(camera.offset), dtype=np.uint8)
    if suffix == RECORDS:
        number = CAMERA_NAMES.index(camera.name)
        return np.frombuffer(RecordSegment(Path(camera.path)).image(camera.offset, number), dtype=np.uint8)
    return read_bytes(camera.path)


def read_bytes(path: str | os.PathLike) -> np.ndarray:
    """Return the bytes ``[N]`` uint8 of an image file.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such image; {MOVED_HINT}")
    return np.fromfile(path, dtype=np.uint8)
