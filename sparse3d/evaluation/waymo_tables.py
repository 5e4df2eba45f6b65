"""A frame's predictions and annotations as the tables that the Waymo metrics read, in the vehicle frame.

Objects without LiDAR points are not scored. The camera-only task takes the objects that a camera sees, where it saw
them, and counts the points of the top LiDAR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..datasets.transforms.loading import camera_synced_annotations
from ..datasets.waymo_schema import CATEGORIES
from ..structures import Annotations, Boxes3D, Frame
from ..structures.skeleton import MISSING
from .keypoints_boxes import KeypointTable, to_levels
from .waymo_boxes import WaymoDetections, WaymoGroundTruth, difficulty
from .waymo_zones import boxes_in_zones

TYPE_OF = {name: number for number, name in enumerate(CATEGORIES) if number}  # unknown objects have no class


def check_class_names(class_names: Sequence[str]) -> None:
    """Check that classes have a type in Waymo.

    Raises:
        ValueError: if one has none.
    """
    unknown = [name for name in class_names if name not in TYPE_OF]
    if unknown:
        raise ValueError(f"class_names: not a class of Waymo: {unknown}; expected some of {list(TYPE_OF)}")


def frame_detections(
    frame: Frame,
    boxes: Boxes3D,  # [M]
    scores: Tensor,  # [M]
    labels: Tensor,  # [M]
    class_names: Sequence[str],
) -> WaymoDetections:
    """Return the detections of one frame, given in its LiDAR frame."""
    in_vehicle = boxes.to("cpu").transform(frame.lidar2ego)
    box = in_vehicle.numpy()[:, :7]
    return WaymoDetections(
        sample=np.zeros(len(box), np.int64),
        box=box,
        type=np.array([TYPE_OF[name] for name in class_names], np.int64)[labels.cpu().numpy()],
        score=scores.cpu().numpy(),
        overlaps_no_label_zone=boxes_in_zones(in_vehicle.transform(frame.ego2global), frame.no_label_zones),
    )


def frame_ground_truth(
    annotations: Annotations, class_names: Sequence[str], camera_synced: bool = False
) -> WaymoGroundTruth:
    """Return the objects of the classes that are scored.

    Args:
        annotations: of one frame of Waymo.
        class_names: the classes.
        camera_synced: for the camera-only task.

    Raises:
        ValueError: if the annotations are not Waymo's.
    """
    if camera_synced:
        annotations = camera_synced_annotations(annotations)
    wanted = np.isin(annotations.categories, class_names) & (annotations.num_lidar_points > 0)
    chosen = annotations.select(wanted)
    if chosen.waymo is None:
        raise ValueError("the labels are not those of Waymo: they have no levels of difficulty")
    speed = chosen.waymo.speeds[:, :2]
    return WaymoGroundTruth(
        sample=np.zeros(len(chosen), np.int64),
        box=chosen.boxes[:, :7],
        type=np.array([TYPE_OF[name] for name in chosen.categories], np.int64),
        level=difficulty(chosen.waymo.difficulties, chosen.num_lidar_points),
        speed=np.where(np.isnan(speed), 0, speed),  # unknown; no row of the benchmark's tables depends on it
        camera=chosen.waymo.most_visible_cameras,
    )


def frame_people(annotations: Annotations, class_names: Sequence[str]) -> KeypointTable:
    """Return the annotated people of one frame, those without keypoints too; missing keypoints are at the centre."""
    chosen = annotations.select(np.isin(annotations.categories, class_names))
    if chosen.waymo is None:
        raise ValueError("the labels are not those of Waymo: they have no keypoints")
    visibility = chosen.waymo.keypoint_visibility
    return KeypointTable(
        sample=np.zeros(len(chosen), np.int64),
        box=chosen.boxes[:, :7],
        location=np.where((visibility == MISSING)[..., None], chosen.boxes[:, None, :3], chosen.waymo.keypoints),
        visibility=visibility,
    )


def frame_predicted_people(boxes: Boxes3D, keypoints: Tensor, visibility: Tensor) -> KeypointTable:
    """Return the predicted people of one frame.

    Args:
        boxes: M boxes in the vehicle frame.
        keypoints: ``[M, 14, 3]``, likewise.
        visibility: ``[M, 14]``, as regressed.
    """
    return KeypointTable(
        sample=np.zeros(len(boxes), np.int64),
        box=boxes.numpy()[:, :7],
        location=keypoints.detach().cpu().numpy(),
        visibility=to_levels(visibility.detach().cpu().numpy()),
    )
