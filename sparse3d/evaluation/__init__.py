"""Evaluation: the nuScenes detection metric and its result file, the Waymo detection metrics."""

from .nuscenes import NuScenesResult, evaluate_detections
from .nuscenes_boxes import BoxTable, Detections, GroundTruth
from .nuscenes_metric import NuScenesMetric
from .nuscenes_submission import Submission, read_submission, write_submission
from .waymo import (
    CAMERA_ONLY,
    DETECTION_3D,
    DETECTION_BEV,
    DETECTION_BY_SPEED,
    WaymoProtocol,
    WaymoResult,
    evaluate_waymo,
)
from .waymo_boxes import WaymoDetections, WaymoGroundTruth

__all__ = [
    "CAMERA_ONLY",
    "DETECTION_3D",
    "DETECTION_BEV",
    "DETECTION_BY_SPEED",
    "BoxTable",
    "Detections",
    "GroundTruth",
    "NuScenesMetric",
    "NuScenesResult",
    "Submission",
    "WaymoDetections",
    "WaymoGroundTruth",
    "WaymoProtocol",
    "WaymoResult",
    "evaluate_detections",
    "evaluate_waymo",
    "read_submission",
    "write_submission",
]
