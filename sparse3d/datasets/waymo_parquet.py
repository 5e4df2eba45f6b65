"""One component of a Waymo segment: a Parquet file, read by exact column names, a few rows at a time.

A column is `[Component].field` for values and `key.field` for keys; names hold dots and brackets and are never paths.
Nulls are NaN, or what the caller takes for a missing integer. Nothing larger than a few rows of range images is ever
in memory: pages are decoded as they are reached.

Source: the column names of the Waymo Open Dataset v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COMPONENTS = MappingProxyType(
    {
        "vehicle_pose": "VehiclePoseComponent",
        "lidar": "LiDARComponent",
        "lidar_pose": "LiDARPoseComponent",
        "lidar_calibration": "LiDARCalibrationComponent",
        "lidar_box": "LiDARBoxComponent",
        "lidar_camera_synced_box": "LiDARCameraSyncedBoxComponent",
        "lidar_hkp": "LiDARHumanKeypointsComponent",
        "camera_image": "CameraImageComponent",
        "camera_calibration": "CameraCalibrationComponent",
    }
)
SEGMENT, TIMESTAMP = "key.segment_context_name", "key.frame_timestamp_micros"
LASER, CAMERA, OBJECT = "key.laser_name", "key.camera_name", "key.laser_object_id"
ROWS_AT_A_TIME = 5  # the lasers, or the cameras, of a frame
BUFFER = 1 << 20  # bytes of a compressed column in memory


class Component:
    """A Parquet file of one tag of a segment.

    Args:
        folder: the split's folder, which holds a folder for each tag.
        tag: a key of ``COMPONENTS``.
        segment: name of the segment, which is the file's.
    """

    def __init__(self, folder: Path, tag: str, segment: str) -> None:
        self.path = folder / tag / f"{segment}.parquet"
        self.tag = tag

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self.path.is_file()

    def columns(self, *names: str) -> Columns:
        """Return small columns as a whole.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it is damaged, or a column is missing.
        """
        with self._open() as file:
            return Columns(self.path, self.tag, file.read(columns=self._full(file, names), use_threads=False))

    def row_groups(self, timestamp: int) -> list[int]:
        """Return the row groups that hold rows of a frame."""
        with self._open() as file:
            keys = [file.read_row_group(group, columns=[TIMESTAMP])[TIMESTAMP] for group in range(file.num_row_groups)]
            return [group for group, stamps in enumerate(keys) if pc.any(pc.equal(stamps, timestamp)).as_py()]

    def stream(self, *names: str, row_groups: Sequence[int] | None = None) -> Iterator[tuple[int, Row]]:
        """Yield large columns row by row: the number of the row within the groups that are read, and the row.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it is damaged, or a column is missing.
        """
        with self._open() as file:
            groups = range(file.num_row_groups) if row_groups is None else row_groups
            batches = file.iter_batches(
                ROWS_AT_A_TIME, row_groups=list(groups), columns=self._full(file, names), use_threads=False
            )
            number = 0
            for batch in batches:
                for place in range(batch.num_rows):
                    yield number, Row(self.path, self.tag, number, batch, place)
                    number += 1

    def full_name(self, name: str) -> str:
        """Return the column of a field."""
        return full_name(self.tag, name)

    def _full(self, file: pq.ParquetFile, names: Sequence[str]) -> list[str]:
        full = [self.full_name(name) for name in names]
        missing = [name for name in full if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{self.path}: it has no column {missing[0]!r}")
        return full

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file; the component {self.tag!r} of the segment is missing")
        try:
            with pq.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: no readable Parquet file, or cut off ({error})") from error


class Columns:
    """Some columns of a component, as arrays."""

    def __init__(self, path: Path, tag: str, table: pa.Table) -> None:
        self.path = path
        self.tag = tag
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def numbers(self, *names: str) -> np.ndarray:
        """Return fields as float64 ``[N]``, several side by side ``[N, K]``; null is NaN."""
        found = [pc.cast(self._of(name), pa.float64()).to_numpy() for name in names]
        return found[0] if len(found) == 1 else np.stack(found, axis=1)

    def integers(self, name: str, missing: int | None = None) -> np.ndarray:
        """Return a field as int64 ``[N]``; ``missing`` stands for null, which is an error otherwise."""
        column = self._of(name)
        if column.null_count and missing is None:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise ValueError(f"{self.path}, row {row}: {full_name(self.tag, name)} is null")
        filled = column if missing is None else pc.fill_null(column, missing)
        return filled.to_numpy().astype(np.int64)

    def texts(self, name: str) -> list[str]:
        """Return a field as text."""
        return self._of(name).to_pylist()

    def matrices(self, name: str) -> np.ndarray:
        """Return a field as matrices ``[N, 4, 4]`` float64."""
        column = self._of(name).combine_chunks()
        if column.null_count:
            raise ValueError(f"{self.path}: {full_name(self.tag, name)} has {column.null_count} nulls")
        return column.flatten().to_numpy().astype(np.float64).reshape(-1, 4, 4)

    def lists(self, name: str) -> list[list]:
        """Return a field as lists; null is an empty one."""
        return [values or [] for values in self._of(name).to_pylist()]

    def _of(self, name: str) -> pa.ChunkedArray:
        return self._table[full_name(self.tag, name)]


class Row:
    """One row of large columns; a field is decoded when it is asked for."""

    def __init__(self, path: Path, tag: str, number: int, batch: pa.RecordBatch, place: int) -> None:
        self.path = path
        self.tag = tag
        self.number = number
        self._batch = batch
        self._place = place

    def value(self, name: str) -> Any:
        """Return a field as a Python value."""
        return self._of(name).as_py()

    def image(self, name: str) -> np.ndarray | None:
        """Return ``<name>.values`` ``[N]`` float32 in the shape ``<name>.shape``; None where they are null.

        Raises:
            ValueError: if there are more or fewer values than the shape says.
        """
        values, shape = self._of(f"{name}.values"), self._of(f"{name}.shape")
        if not (values.is_valid and shape.is_valid):
            return None
        array, size = values.values.to_numpy(zero_copy_only=False), shape.as_py()
        if len(array) != np.prod(size):
            raise ValueError(f"{self}: {name} has {len(array)} values for the shape {size}")
        return array.reshape(size)

    def _of(self, name: str) -> pa.Scalar:
        return self._batch.column(full_name(self.tag, name))[self._place]

    def __str__(self) -> str:
        return f"{self.path}, row {self.number}"


def full_name(tag: str, name: str) -> str:
    """Return the column of a field of a component; keys are the same in all of them."""
    return name if name.startswith("key.") else f"[{COMPONENTS[tag]}].{name}"
