"""What a picture shows, checked once and brought to plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ..structures import Boxes3D
from ..structures.boxes import EDGES
from .colors import point_map, spread, to_levels


@dataclass(frozen=True)
class Objects:
    """Boxes to draw.

    Args:
        boxes: ``[N, 9]`` float64 ``(x, y, z, l, w, h, yaw, vx, vy)``, velocity NaN where unknown.
        labels: ``[N]`` int64, -1 for an object of no class.
        scores: ``[N]`` float64; 1 for ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: np.ndarray) -> Objects:
        """Return some of the objects."""
        return Objects(self.boxes[index], self.labels[index], self.scores[index])

    def corners(self) -> np.ndarray:
        """Corners ``[N, 8, 3]`` in the order of ``structures.boxes.CORNER_SIGNS``."""
        return Boxes3D(self.boxes).corners().numpy()


def read_points(points: Tensor | np.ndarray) -> np.ndarray:
    """Return points as a float32 array ``[P, F]``; raise ValueError unless they are finite with at least 3 columns."""
    array = _to_array(points).astype(np.float32)
    if array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(f"points: expected [P, >= 3], got {list(array.shape)}")
    if not np.isfinite(array[:, :3]).all():
        raise ValueError("points: coordinates must be finite; drop points that are NaN or infinite first")
    return array


def read_ground_truth(gt: InstanceData | None, class_names: Sequence[str]) -> Objects:
    """Return ground truth (``boxes``, ``labels``), none for None; raise ValueError where they do not fit together."""
    if gt is None:
        return _nothing()
    boxes, labels = _read_boxes("gt", gt, class_names, lowest=-1)
    return Objects(boxes, labels, np.ones(len(boxes)))


def read_predictions(pred: InstanceData | None, class_names: Sequence[str]) -> Objects:
    """Return predictions (``boxes``, ``labels``, ``scores``), the best last so that they are drawn on top.

    Raises:
        ValueError: where boxes, labels and scores do not fit together.
    """
    if pred is None:
        return _nothing()
    boxes, labels = _read_boxes("pred", pred, class_names, lowest=0)
    scores = _to_array(pred.scores).astype(np.float64)
    if scores.shape != (len(boxes),) or not np.isfinite(scores).all():
        raise ValueError(f"pred.scores: expected [{len(boxes)}] finite numbers, got {list(scores.shape)}")
    return Objects(boxes, labels, scores).select(np.argsort(scores, kind="stable"))


def point_colors(points: np.ndarray, mode: str) -> np.ndarray:
    """Return colours ``[P, 3]`` uint8 by ``"height"``, ``"intensity"`` or ``"time"``; a missing column counts as 0."""
    column = {"height": 2, "intensity": 3, "time": max(4, points.shape[1] - 1)}[mode]
    values = points[:, column] if column < points.shape[1] else np.zeros(len(points), np.float32)
    return point_map(mode)[to_levels(values, *spread(values))]


def box_lines(objects: Objects) -> np.ndarray:
    """Return the edges of boxes and a tick towards their front ``[N * 13, 2, 3]``."""
    corners = objects.corners()
    edges = corners[:, np.array(EDGES)]
    tick = np.stack([objects.boxes[:, :3], corners[:, :4].mean(axis=1)], axis=1)[:, None]
    return np.concatenate([edges, tick], axis=1).reshape(-1, 2, 3)


def _read_boxes(
    name: str, instances: InstanceData, class_names: Sequence[str], lowest: int
) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.full((len(instances.boxes), 9), np.nan)
    array = instances.boxes.numpy()
    boxes[:, : array.shape[1]] = array
    labels = _to_array(instances.labels).astype(np.int64)
    if labels.shape != (len(boxes),):
        raise ValueError(f"{name}.labels: expected [{len(boxes)}], one a box, got {list(labels.shape)}")
    if not ((labels >= lowest) & (labels < len(class_names))).all():
        raise ValueError(
            f"{name}.labels: expected {lowest} to {len(class_names) - 1}, got {sorted(set(labels.tolist()))}"
        )
    if not np.isfinite(boxes[:, :7]).all():
        raise ValueError(f"{name}.boxes: centre, size and yaw must be finite")
    return boxes, labels


def _nothing() -> Objects:
    return Objects(np.zeros((0, 9)), np.zeros(0, dtype=np.int64), np.zeros(0))


def _to_array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
