"""The object database of ground-truth paste: the annotated objects of a split with their points, in one mapped file.

A row is an object. Its points are relative to the box's centre, with every column that the loader gives, so the time
lags of a moving object's sweeps stay with it. Its keypoints are relative to the centre too; missing ones lie in it.
Only the columns that sampling looks at are read when a file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sparse3d_ops.boxes import points_in_boxes_mask

from ..structures import Sample
from ..structures.skeleton import MISSING, NUM_KEYPOINTS
from .arrow_file import ArrowKind, arrow_metadata, open_arrow, read_batches
from .object_crops import CROPS, cut_crops
from .point_kernels import near_boxes

BOX_DIM = 9
OBJECTS = ArrowKind(
    "object database",
    3,
    pa.schema(
        {
            "frame": pa.string(),  # token
            "class": pa.string(),
            "box": pa.list_(pa.float32(), BOX_DIM),  # in the frame's LiDAR coordinates
            "num_lidar_points": pa.int64(),  # as annotated, in the key frame
            "points": pa.list_(pa.float32()),  # [K, columns] row by row, x, y, z relative to the box's centre
            "keypoints": pa.list_(pa.float32(), 3 * NUM_KEYPOINTS),  # x, y, z relative to the box's centre
            "keypoint_visibility": pa.list_(pa.int8(), NUM_KEYPOINTS),  # missing where the data set has none
            "crops": CROPS,  # of the images, where the database was created with them
        }
    ),
    "python tools/create_data.py objects --root DIR --index sparse3d_train.arrow",
)
COLUMNS = "columns"  # entry of the metadata: values a point
IMAGES = "images"  # entry of the metadata: "yes" where there are crops


@dataclass(frozen=True, eq=False)
class Objects:
    """Some objects of a database."""

    boxes: np.ndarray  # [K, 9] float32
    num_lidar_points: np.ndarray  # [K] int64
    points: np.ndarray  # [P, columns] float32, where they were recorded, object after object
    keypoints: np.ndarray  # [K, 14, 3] float32, where they were recorded; at the box's centre where missing
    keypoint_visibility: np.ndarray  # [K, 14] int64


def encode_objects(sample: Sample, class_names: Sequence[str]) -> pa.RecordBatch:
    """Cut the objects out of a sample with ``points`` and ``gt``, and out of its ``images`` if there are any.

    Objects without a point are left out.
    """
    boxes = sample.gt.boxes.tensor
    near = sample.points[torch.from_numpy(near_boxes(sample.points.numpy(), boxes.numpy()))]
    inside = points_in_boxes_mask(near[:, :3].contiguous(), boxes[:, :7])
    of_point, of_object = inside.nonzero(as_tuple=True)
    of_object, order = of_object.sort(stable=True)
    points = near[of_point[order]]
    points[:, :3] -= boxes[of_object, :3]
    counts = torch.bincount(of_object, minlength=len(boxes))
    filled = counts > 0
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts[filled].cumsum(0)]) * points.shape[1]
    names = [class_names[label] for label in sample.gt.labels[filled].tolist()]
    keypoints, visibility = _keypoints(sample)
    crops = cut_crops(sample) if "images" in sample else [[]] * len(boxes)
    columns = {
        "frame": pa.array([sample.frame.token] * len(names), pa.string()),
        "class": pa.array(names, pa.string()),
        "box": pa.FixedSizeListArray.from_arrays(boxes[filled].numpy().ravel(), BOX_DIM),
        "num_lidar_points": pa.array(sample.gt.num_points[filled].numpy()),
        "points": pa.ListArray.from_arrays(ends.int().numpy(), points.numpy().ravel()),
        "keypoints": pa.FixedSizeListArray.from_arrays(keypoints[filled].numpy().ravel(), 3 * NUM_KEYPOINTS),
        "keypoint_visibility": pa.FixedSizeListArray.from_arrays(visibility[filled].numpy().ravel(), NUM_KEYPOINTS),
        "crops": pa.array([crops[row] for row in filled.nonzero()[:, 0].tolist()], CROPS),
    }
    return pa.record_batch(columns, schema=OBJECTS.schema)


def _keypoints(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keypoints ``[N, 14, 3]`` relative to the boxes' centres, and visibilities ``[N, 14]`` int8."""
    centers = sample.gt.boxes.centers[:, None]
    if "keypoints" not in sample.gt:
        none = torch.full((len(centers), NUM_KEYPOINTS), MISSING, dtype=torch.int8)
        return torch.zeros(len(centers), NUM_KEYPOINTS, 3), none
    return sample.gt.keypoints - centers, sample.gt.keypoint_visibility.to(torch.int8)


class ObjectDatabase:
    """The objects of a database; points are read when they are asked for.

    Args:
        path: the Arrow file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no object database, or one of another version.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        reader = open_arrow(self.path, OBJECTS)
        self.metadata: Mapping[str, str] = arrow_metadata(reader)
        self.columns = int(self.metadata[COLUMNS])
        self.has_crops = self.metadata[IMAGES] == "yes"
        batches = read_batches(reader)
        table = pa.Table.from_batches(batches, OBJECTS.schema)
        self.class_names: list[str] = pc.unique(table["class"]).to_pylist()
        self.labels = _codes(table["class"], self.class_names)  # [N], positions in class_names
        self.num_points = pc.list_value_length(table["points"]).to_numpy() // self.columns  # [N]
        self.num_lidar_points = table["num_lidar_points"].to_numpy()  # [N]
        self._boxes = [_values(batch, "box").reshape(-1, BOX_DIM) for batch in batches]
        self._points = [_values(batch, "points").reshape(-1, self.columns) for batch in batches]
        self._keypoints = _stacked(batches, "keypoints", (NUM_KEYPOINTS, 3))  # [N, 14, 3]
        self._visibility = _stacked(batches, "keypoint_visibility", (NUM_KEYPOINTS,))  # [N, 14]
        self._crops = [batch.column("crops") for batch in batches]
        self._first_row = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._first_point = np.cumsum([0, *self.num_points])

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, class_name: str, min_points: int, keypoints_only: bool = False) -> np.ndarray:
        """Return the objects ``[K]`` of a class with at least so many points, and if asked for, with a keypoint."""
        if class_name not in self.class_names:
            return np.zeros(0, dtype=np.int64)
        wanted = self.labels == self.class_names.index(class_name)
        if keypoints_only:
            wanted = wanted & (self._visibility != MISSING).any(axis=1)
        return np.flatnonzero(wanted & (self.num_points >= min_points))

    def boxes(self, rows: np.ndarray) -> np.ndarray:
        """Return the boxes ``[K, 9]`` of objects ``[K]``."""
        places = [self._place(row) for row in rows]
        return np.array([self._boxes[batch][row] for batch, row in places], dtype=np.float32).reshape(-1, BOX_DIM)

    def take(self, rows: np.ndarray) -> Objects:
        """Return objects ``[K]`` with their points."""
        boxes = self.boxes(rows)
        clouds = [self._points_of(row) for row in rows]
        points = np.concatenate([*clouds, np.zeros((0, self.columns), dtype=np.float32)])
        points[:, :3] += np.repeat(boxes[:, :3], self.num_points[rows], axis=0)
        keypoints = self._keypoints[rows] + boxes[:, None, :3]
        return Objects(boxes, self.num_lidar_points[rows], points, keypoints, self._visibility[rows].astype(np.int64))

    def crops(self, rows: np.ndarray) -> list[list[dict[str, Any]]]:
        """Return the image crops of objects ``[K]``; see ``object_crops.CROPS``."""
        places = [self._place(row) for row in rows]
        return [self._crops[batch][row].as_py() for batch, row in places]

    def _place(self, row: int) -> tuple[int, int]:
        """Return the batch of an object, and its row there."""
        batch = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return batch, row - self._first_row[batch]

    def _points_of(self, row: int) -> np.ndarray:
        batch, _ = self._place(row)
        first = self._first_point[self._first_row[batch]]
        return self._points[batch][self._first_point[row] - first : self._first_point[row + 1] - first]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path: a process that receives a database maps the file by itself."""
        return ObjectDatabase, (self.path,)


def _codes(names: pa.ChunkedArray, value_set: list[str]) -> np.ndarray:
    return pc.index_in(names, value_set=pa.array(value_set, pa.string())).to_numpy().astype(np.int16)


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Return the numbers of a list column, one after the other, as a view of the file."""
    return batch.column(name).flatten().to_numpy()


def _stacked(batches: Sequence[pa.RecordBatch], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of a column of lists of equal length as ``[N, *shape]``."""
    parts = [_values(batch, name).reshape(-1, *shape) for batch in batches]
    return np.concatenate(parts) if parts else np.zeros((0, *shape), dtype=np.float32)
