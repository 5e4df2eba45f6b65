"""The index of a data set: its frames in one versioned, memory-mapped Arrow file.

A row is a frame, a column is a field of it. Rows are decoded when they are asked for, so an index opens at once however
long it is, and the processes of a data loader share its pages. Sensor files are stored relative to the data root.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..structures import Frame
from ..structures.skeleton import MISSING, NUM_KEYPOINTS
from .arrow_file import ArrowKind, arrow_metadata, arrow_writer, merge_arrow, open_arrow, read_batches
from .index_schema import INDEX_VERSION, SCHEMA, decode_frame, encode_frames

FRAMES_PER_BATCH = 64
INDEX = ArrowKind("index", INDEX_VERSION, SCHEMA, "python tools/create_data.py nuscenes|waymo --root DIR ...")


def write_index(
    path: str | os.PathLike, frames: Iterable[Frame], metadata: Mapping[str, str], data_root: str | os.PathLike
) -> None:
    """Write frames to an index; nothing stands at ``path`` until all of them are written.

    Args:
        path: the file to write.
        frames: the frames in their order; they are taken one batch at a time.
        metadata: what else the file says about itself: data set, version, split, checksum of the source.
        data_root: folder that the sensor files' paths are stored relative to.

    Raises:
        ValueError: if a sensor file is not below ``data_root``.
    """
    with arrow_writer(Path(path), INDEX, metadata) as writer:
        for batch in _batches(frames):
            writer.write_batch(encode_frames(batch, Path(data_root)))


def merge_indexes(path: str | os.PathLike, parts: Sequence[str | os.PathLike], metadata: Mapping[str, str]) -> None:
    """Write the frames of several indexes of the same data root, one after the other, to a new index."""
    merge_arrow(Path(path), [Path(part) for part in parts], INDEX, metadata)


def read_index_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return what an index says about itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no index, or one of another version.
    """
    return arrow_metadata(open_arrow(Path(path), INDEX))


def is_current_index(path: Path, metadata: Mapping[str, str]) -> bool:
    """Return whether ``path`` is an index that says this about itself and that this version of the code can read."""
    if not path.is_file():
        return False
    try:
        found = read_index_metadata(path)
    except ValueError:  # damaged, or of another index version: it is written anew
        return False
    return all(found.get(key) == value for key, value in metadata.items())


@dataclass(frozen=True, eq=False)
class ObjectColumns:
    """The annotated objects of many frames: what class-balanced sampling looks at."""

    categories: tuple[str, ...]  # [K], the different ones
    codes: np.ndarray  # [N] int, position in `categories`
    num_lidar_points: np.ndarray  # [N] int64
    frames: np.ndarray  # [N] int64, row of the frame

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> ObjectColumns:
        """Collect the objects of decoded frames."""
        annotated = [(row, frame.annotations) for row, frame in enumerate(frames) if frame.annotations is not None]
        names = [name for _, annotations in annotated for name in annotations.categories]
        points = [annotations.num_lidar_points for _, annotations in annotated]
        rows = [np.full(len(annotations), row) for row, annotations in annotated]
        empty = np.zeros(0, dtype=np.int64)
        return cls.encode(
            pa.array(names, pa.string()), np.concatenate([*points, empty]), np.concatenate([*rows, empty])
        )

    @classmethod
    def encode(cls, names: pa.Array | pa.ChunkedArray, num_lidar_points: np.ndarray, rows: np.ndarray) -> ObjectColumns:
        """Replace the category of each object by its place among the different ones."""
        categories = pc.unique(names)
        codes = pc.index_in(names, value_set=categories).to_numpy(zero_copy_only=False)
        return cls(tuple(categories.to_pylist()), codes, num_lidar_points, rows)


class FrameIndex(Sequence[Frame]):
    """The frames of an index, decoded when they are asked for.

    Args:
        path: the Arrow file.
        data_root: folder that holds `samples/` and `sweeps/`; the frames' paths are below it.

    Raises:
        FileNotFoundError: if the file or the folder is not there.
        ValueError: if the file is no index, or one of another version.
    """

    def __init__(self, path: str | os.PathLike, data_root: str | os.PathLike) -> None:
        self.path = Path(path)
        self.data_root = Path(data_root).absolute()
        if not self.data_root.is_dir():
            raise FileNotFoundError(
                f"{self.data_root} is no folder; {self.path.name} holds paths relative to the data root: "
                "if the data moved, pass its new folder as data_root"
            )
        self._reader = open_arrow(self.path, INDEX)
        self.metadata = arrow_metadata(self._reader)
        self._ends = np.cumsum([0, *(batch.num_rows for batch in read_batches(self._reader))])  # of batches, from 0

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: int) -> Frame:  # type: ignore[override]
        """Decode frame ``item``; negative numbers count from the end."""
        row = item + len(self) if item < 0 else item
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path.name} holds {len(self)} frames, there is no frame {item}")
        number = int(np.searchsorted(self._ends, row, side="right")) - 1
        # Batches are not kept: each holds on to what was looked up in it, and memory would grow with the data set.
        batch = self._reader.get_batch(number)
        return decode_frame(batch, row - int(self._ends[number]), self.data_root)

    def objects(self) -> ObjectColumns:
        """Return the annotated objects of all frames, column by column; no frame is decoded."""
        categories, points = self._columns("annotations.categories", "annotations.num_lidar_points")
        counts = pc.fill_null(pc.list_value_length(categories), 0).to_numpy()
        return ObjectColumns.encode(
            pc.list_flatten(categories), pc.list_flatten(points).to_numpy(), np.repeat(np.arange(len(self)), counts)
        )

    def shows_keypoints(self) -> np.ndarray:
        """Return ``[F]`` bool: whether anybody in a frame has a keypoint (Waymo); no frame is decoded."""
        (column,) = self._columns("annotations.waymo.keypoint_visibility")
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        visibility = pc.list_flatten(pc.list_flatten(column)).to_numpy().reshape(-1, NUM_KEYPOINTS)
        shows = np.zeros(len(self), dtype=bool)
        shows[np.repeat(np.arange(len(self)), counts)[(visibility != MISSING).any(axis=1)]] = True
        return shows

    def scenes_and_timestamps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scene's name ``[F]`` and the timestamp ``[F]`` int64 of each frame; no frame is decoded."""
        scenes, timestamps = self._columns("scene", "timestamp")
        return scenes.to_numpy().astype(str), timestamps.to_numpy()

    def _columns(self, *names: str) -> list[pa.ChunkedArray]:
        table = pa.Table.from_batches((batch.select(names) for batch in read_batches(self._reader)), _part(names))
        return [table[name] for name in names]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the two paths: a process that receives an index maps the file by itself."""
        return FrameIndex, (self.path, self.data_root)


def _part(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in columns])


def _batches(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == FRAMES_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
