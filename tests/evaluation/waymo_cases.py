"""Frames of Waymo made by hand, for the metrics that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparse3d.structures import Annotations, Boxes3D, Frame, InstanceData, LidarScan, WaymoLabels
from sparse3d.structures.skeleton import NUM_KEYPOINTS, VISIBLE

NAMES = ["Vehicle", "Pedestrian", "Cyclist"]


def annotations(boxes: list[list[float]], categories: list[str], **changes: Any) -> Annotations:
    """Objects with 10 LiDAR points, 8 of them of the top LiDAR, seen by the front camera, all keypoints visible."""
    count = len(boxes)
    array = np.array(boxes, np.float64).reshape(count, 7)
    labels = dict(
        difficulties=np.zeros(count, np.int64),
        tracking_difficulties=np.zeros(count, np.int64),
        num_top_lidar_points=np.full(count, 8),
        speeds=np.full((count, 3), np.nan),
        accelerations=np.full((count, 3), np.nan),
        most_visible_cameras=np.ones(count, np.int64),
        camera_synced_boxes=array,
        keypoints=array[:, None, :3] + np.linspace(-0.3, 0.3, NUM_KEYPOINTS)[:, None],
        keypoint_visibility=np.full((count, NUM_KEYPOINTS), VISIBLE),
    )
    num_points = changes.pop("num_lidar_points", np.full(count, 10))
    return Annotations(
        tokens=tuple(map(str, range(count))),
        instances=tuple(map(str, range(count))),
        categories=tuple(categories),
        attributes=("",) * count,
        boxes=np.concatenate([array, np.full((count, 2), np.nan)], axis=1),
        num_lidar_points=np.asarray(num_points),
        num_radar_points=np.zeros(count, np.int64),
        global_centers=array[:, :3],
        global_rotations=np.tile([1.0, 0, 0, 0], (count, 1)),
        global_velocities=np.full((count, 2), np.nan),
        waymo=WaymoLabels(**{**labels, **changes}),
    )


def frame(objects: Annotations | None, number: int = 0, **changes: Any) -> Frame:
    """Frame ``number`` of a segment."""
    timestamp = 1_550_083_467_346_370 + 100_000 * number
    fields = dict(
        token=f"segment/{timestamp}",
        scene="segment",
        timestamp=timestamp,
        lidar=LidarScan("", timestamp, np.eye(4)),
        sweeps=(),
        cameras=(),
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        annotations=objects,
    )
    return Frame(**{**fields, **changes})


def prediction(boxes: list[list[float]] | np.ndarray, labels: list[int], scores: list[float]) -> InstanceData:
    tensor = torch.as_tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 7)
    return InstanceData(
        boxes=Boxes3D(tensor), labels=torch.tensor(labels, dtype=torch.int64), scores=torch.tensor(scores)
    )


def poses(objects: Annotations, shift: float = 0.0, visibility: float = 2.0) -> InstanceData:
    """The annotated people, as if predicted, their keypoints moved along x."""
    pred = prediction(objects.boxes[:, :7], [0] * len(objects), [0.9] * len(objects))
    moved = objects.waymo.keypoints + np.array([shift, 0, 0])
    pred.keypoints = torch.from_numpy(moved).float()
    pred.keypoint_visibility = torch.full((len(objects), NUM_KEYPOINTS), visibility)
    return pred
