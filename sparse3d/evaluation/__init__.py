"""Evaluation: the nuScenes detection metric and its result file."""

from .nuscenes import NuScenesResult, evaluate_detections
from .nuscenes_boxes import BoxTable, Detections, GroundTruth

__all__ = ["BoxTable", "Detections", "GroundTruth", "NuScenesResult", "evaluate_detections"]
