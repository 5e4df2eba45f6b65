"""Evaluation: the nuScenes detection metric and its result file."""

from .nuscenes import NuScenesResult, evaluate_detections
from .nuscenes_boxes import BoxTable, Detections, GroundTruth
from .nuscenes_metric import NuScenesMetric
from .nuscenes_submission import Submission, read_submission, write_submission

__all__ = [
    "BoxTable",
    "Detections",
    "GroundTruth",
    "NuScenesMetric",
    "NuScenesResult",
    "Submission",
    "evaluate_detections",
    "read_submission",
    "write_submission",
]
