"""Evaluation: the nuScenes detection metric and its result file, the Waymo metrics of detection and of keypoints."""

from .keypoints import KeypointResult, evaluate_keypoints
from .keypoints_boxes import KeypointTable
from .keypoints_matching import match_by_iou, match_by_mean_error
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
from .waymo_keypoint_metric import WaymoKeypointMetric
from .waymo_metric import WaymoMetric
from .waymo_results import WaymoResults, read_detections
from .waymo_submission import FrameKey, SubmissionInfo, write_detections, write_poses

__all__ = [
    "CAMERA_ONLY",
    "DETECTION_3D",
    "DETECTION_BEV",
    "DETECTION_BY_SPEED",
    "BoxTable",
    "Detections",
    "FrameKey",
    "GroundTruth",
    "KeypointResult",
    "KeypointTable",
    "NuScenesMetric",
    "NuScenesResult",
    "Submission",
    "SubmissionInfo",
    "WaymoDetections",
    "WaymoGroundTruth",
    "WaymoKeypointMetric",
    "WaymoMetric",
    "WaymoProtocol",
    "WaymoResult",
    "WaymoResults",
    "evaluate_detections",
    "evaluate_keypoints",
    "evaluate_waymo",
    "match_by_iou",
    "match_by_mean_error",
    "read_detections",
    "read_submission",
    "write_detections",
    "write_poses",
    "write_submission",
]
