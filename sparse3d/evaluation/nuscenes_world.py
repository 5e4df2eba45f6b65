"""A frame's predictions and annotations as the tables that the nuScenes metric reads.

    centre     ego2global lidar2ego (x, y, z)
    rotation   q(ego2global) q(lidar2ego) q(z, yaw)     the vehicle's roll and pitch stay in
    velocity   the full rotation applied to (vx, vy, 0), x and y of the outcome

Attributes are not predicted; they follow from the class and the speed, by the rule of mmdetection3d's LiDAR models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..datasets.nuscenes_schema import ATTRIBUTES, BICYCLE_RACK, CATEGORY_TO_CLASS
from ..datasets.poses import quaternion_of, quaternion_product
from ..structures import Annotations, Boxes3D, Frame
from .nuscenes_boxes import (
    MAX_BOXES_PER_SAMPLE,
    NO_ATTRIBUTE,
    BoxTable,
    Detections,
    GroundTruth,
    check_detections,
    check_ground_truth,
)

MIN_SPEED = 0.2  # m/s; what is faster moves
ATTRIBUTE_WHEN_MOVING = MappingProxyType(
    {
        **dict.fromkeys(("car", "truck", "trailer", "bus", "construction_vehicle"), "vehicle.moving"),
        **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
        "pedestrian": "pedestrian.moving",
    }
)
ATTRIBUTE_WHEN_STANDING = MappingProxyType(
    {
        **dict.fromkeys(("car", "truck", "trailer", "construction_vehicle"), "vehicle.parked"),
        "bus": "vehicle.stopped",
        **dict.fromkeys(("bicycle", "motorcycle"), "cycle.without_rider"),
        "pedestrian": "pedestrian.standing",
    }
)
ATTRIBUTE_INDEX = MappingProxyType({"": NO_ATTRIBUTE, **{name: index for index, name in enumerate(ATTRIBUTES)}})


def world_detections(
    frame: Frame,
    boxes: Boxes3D,  # [M]
    scores: Tensor,  # [M]
    labels: Tensor,  # [M]
    class_names: Sequence[str],
) -> Detections:
    """Bring the predictions of one frame into the world frame and give them attributes.

    Args:
        frame: the frame, for its poses.
        boxes: in the LiDAR frame. Without velocities, they are NaN (unknown) in the table too, and nothing moves.
        scores: in [0, 1].
        labels: positions in ``class_names``.
        class_names: names of the labels.

    Returns:
        A table of one sample, in the order of ``boxes``; of more than 500 boxes, those with the highest scores.

    Raises:
        ValueError: if a prediction is not finite or out of range; the message names the frame and the rows.
    """
    translation, size, rotation, velocity = boxes.to(torch.float64).to_nuscenes()
    turn = frame.lidar2global[:3, :3]
    lidar2global = quaternion_product(quaternion_of(frame.ego2global[:3, :3]), quaternion_of(frame.lidar2ego[:3, :3]))
    velocity = velocity @ turn[:2, :2].T
    label = labels.detach().cpu().numpy()
    detections = Detections(
        sample=np.zeros(len(boxes), np.int64),
        translation=translation @ turn.T + frame.lidar2global[:3, 3],
        size=size,
        rotation=quaternion_product(lidar2global, rotation),
        velocity=velocity,
        label=label,
        attribute=np.full(len(boxes), NO_ATTRIBUTE),
        score=scores.detach().double().cpu().numpy(),
    )
    check_detections(f"predictions for frame {frame.token}", detections, 1, len(class_names), len(ATTRIBUTES))
    detections = replace(detections, attribute=attributes_from_speed(velocity, label, class_names))
    return detections.take(_highest(detections.score))


def attributes_from_speed(
    velocities: np.ndarray,  # [N, 2], m/s
    labels: np.ndarray,  # [N]
    class_names: Sequence[str],
) -> np.ndarray:
    """Return each object's attribute ``[N]``, a position in ``ATTRIBUTES``; objects of unknown speed stand still."""
    moving, standing = (
        np.array([ATTRIBUTE_INDEX[names.get(name, "")] for name in class_names])
        for names in (ATTRIBUTE_WHEN_MOVING, ATTRIBUTE_WHEN_STANDING)
    )
    return np.where(np.linalg.norm(velocities, axis=1) > MIN_SPEED, moving[labels], standing[labels])


def world_ground_truth(frame: Frame, annotations: Annotations, class_names: Sequence[str]) -> GroundTruth:
    """Return the annotated objects of the classes ``class_names`` as a table of one sample.

    Raises:
        ValueError: if an attribute is unknown or a number is not finite or out of range; the message names the frame.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    label = np.array([labels.get(CATEGORY_TO_CLASS.get(name, ""), -1) for name in annotations.categories], np.int64)
    unknown = sorted(set(annotations.attributes) - set(ATTRIBUTE_INDEX))
    if unknown:
        raise ValueError(f"annotations of frame {frame.token}: unknown attributes {unknown}; known: {list(ATTRIBUTES)}")
    ground_truth = GroundTruth(
        **_geometry(annotations),
        velocity=annotations.global_velocities,
        label=label,
        attribute=np.array([ATTRIBUTE_INDEX[name] for name in annotations.attributes], np.int64),
        num_points=annotations.num_lidar_points + annotations.num_radar_points,
    ).take(label >= 0)
    check_ground_truth(f"annotations of frame {frame.token}", ground_truth, 1, len(class_names), len(ATTRIBUTES))
    return ground_truth


def world_bike_racks(annotations: Annotations) -> BoxTable:
    """Return the annotated bicycle racks as a table of one sample."""
    is_rack = np.array([name == BICYCLE_RACK for name in annotations.categories], dtype=bool)
    return BoxTable(**_geometry(annotations)).take(is_rack)


def _geometry(annotations: Annotations) -> dict[str, np.ndarray]:
    return {
        "sample": np.zeros(len(annotations), np.int64),
        "translation": annotations.global_centers,
        "size": annotations.boxes[:, [4, 3, 5]],
        "rotation": annotations.global_rotations,
    }


def _highest(scores: np.ndarray) -> np.ndarray:
    """Return the rows of the highest scores, as many as the benchmark accepts, in their order."""
    return np.sort(np.argsort(-scores, kind="stable")[:MAX_BOXES_PER_SAMPLE])
