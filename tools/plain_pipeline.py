"""The data pipeline that `benchmark_data.py` is compared with, written plainly: one array operation after another.

It does what mmdetection3d's nuScenes pipeline does, in its order: take the frame's record out of a pickle, read the key
frame and its sweeps, bring them home, stack them, mirror, turn, scale and shift points and boxes, drop what is out of
range, and number the voxels. It draws the same random numbers in the same order as sparse3d's transforms, so that both
can be checked to give the same sample.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS
from sparse3d.structures import Frame, Grid, LidarScan

NUM_FEATURES, CLOSE = 5, 1.0
TURN, SCALE, SHIFT = np.pi / 4, (0.9, 1.1), 0.5


@dataclass
class PlainSample:
    """What the plain pipeline makes of a frame."""

    points: np.ndarray  # [P, 5] float32
    boxes: np.ndarray  # [N, 9] float32
    labels: np.ndarray  # [N]


class PlainPipeline:
    """The pipeline over records that are kept as pickles, as mmengine's data sets keep them."""

    def __init__(self, frames: Sequence[Frame], class_names: Sequence[str], grid: Grid, sweeps: int) -> None:
        self.records = [pickle.dumps(frame) for frame in frames]
        self.class_names = list(class_names)
        self.grid = grid
        self.sweeps = sweeps

    def __len__(self) -> int:
        return len(self.records)

    def load(self, item: int, rng: np.random.Generator) -> PlainSample:
        """Return the sample of an item."""
        frame: Frame = pickle.loads(self.records[item])
        points = self._load_points(frame)
        boxes, labels = self._load_boxes(frame)
        points, boxes = _augment(points, boxes, rng)
        points = points[_inside(points[:, :3], self.grid)]
        kept = _inside(boxes[:, :3], self.grid)
        return PlainSample(points, boxes[kept], labels[kept])

    def voxelize(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the occupied voxels ``[V, 3]`` ``(z, y, x)``, and the row of each point among them ``[P]``."""
        lower, size = np.array(self.grid.lower, np.float32), np.array(self.grid.voxel_size, np.float32)
        cells = np.floor((points[:, :3] - lower) / size).astype(np.int64)[:, ::-1]
        cells = np.minimum(cells, np.array(self.grid.shape) - 1)
        keys, rows = np.unique(np.ravel_multi_index(tuple(cells.T), self.grid.shape), return_inverse=True)
        return np.stack(np.unravel_index(keys, self.grid.shape), axis=1), rows

    def _load_points(self, frame: Frame) -> np.ndarray:
        key = _read(frame.lidar)
        key[:, 4] = 0
        clouds = [key]
        for sweep in frame.sweeps[: self.sweeps]:
            points = _read(sweep)
            close = (np.abs(points[:, 0]) < CLOSE) & (np.abs(points[:, 1]) < CLOSE)
            points = points[~close]
            points[:, :3] = points[:, :3] @ sweep.lidar2key[:3, :3].T
            points[:, :3] += sweep.lidar2key[:3, 3]
            points[:, 4] = (frame.lidar.timestamp - sweep.timestamp) * 1e-6
            clouds.append(points)
        return np.concatenate(clouds)

    def _load_boxes(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        annotations = frame.annotations
        boxes, labels = [], []
        for row, category in enumerate(annotations.categories):
            name = CATEGORY_TO_CLASS.get(category)
            if name in self.class_names and annotations.num_lidar_points[row] >= 1:
                boxes.append(annotations.boxes[row])
                labels.append(self.class_names.index(name))
        return np.array(boxes, dtype=np.float32).reshape(-1, 9), np.array(labels, dtype=np.int64)


def _read(scan: LidarScan) -> np.ndarray:
    points = np.fromfile(scan.path, dtype=np.float32).reshape(-1, NUM_FEATURES)
    if not np.isfinite(points).all():
        raise ValueError(f"{scan.path}: NaN or infinity")
    return points


def _augment(points: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    flip_x, flip_y = rng.random(2) < 0.5
    if flip_x:
        points[:, 0] = -points[:, 0]
        boxes[:, 0], boxes[:, 7], boxes[:, 6] = -boxes[:, 0], -boxes[:, 7], np.pi - boxes[:, 6]
    if flip_y:
        points[:, 1] = -points[:, 1]
        boxes[:, 1], boxes[:, 8], boxes[:, 6] = -boxes[:, 1], -boxes[:, 8], -boxes[:, 6]
    angle = rng.uniform(-TURN, TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float32)
    points[:, :3] = points[:, :3] @ turn.T
    boxes[:, :3], boxes[:, 7:] = boxes[:, :3] @ turn.T, boxes[:, 7:] @ turn[:2, :2].T
    boxes[:, 6] += angle
    factor = np.float32(rng.uniform(*SCALE))
    points[:, :3] *= factor
    boxes[:, :6] *= factor
    boxes[:, 7:] *= factor
    shift = rng.normal(scale=np.full(3, SHIFT)).astype(np.float32)
    points[:, :3] += shift
    boxes[:, :3] += shift
    return points, boxes


def _inside(xyz: np.ndarray, grid: Grid) -> np.ndarray:
    inside = np.ones(len(xyz), dtype=bool)
    for axis in range(3):
        inside &= (xyz[:, axis] >= grid.lower[axis]) & (xyz[:, axis] < grid.upper[axis])
    return inside
