"""The nuScenes metric on a generated result set."""

from __future__ import annotations

import importlib.util
import math
from argparse import Namespace
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from ops_suites.timing import Case, Function

FULL_SAMPLES, BOXES_PER_SAMPLE, OBJECTS_PER_SAMPLE = 6019, 200, 30


def metric_suite(options: Namespace) -> Iterator[Case]:
    """Score a generated result set of nuScenes' size with our metric and with the development kit."""
    from sparse3d.evaluation import evaluate_detections

    samples = options.samples
    ground_truth, detections, ego = detection_tables(samples)
    yield Case(
        f"nuScenes metric, {samples} samples x {BOXES_PER_SAMPLE} boxes",
        lambda: evaluate_detections(ground_truth, detections, ego),
        devkit_metric(ground_truth, detections, ego),
    )


def detection_tables(samples: int) -> tuple[Any, Any, np.ndarray]:
    """Return ground truth, detections (half of them near an object) and ego positions."""
    from sparse3d.evaluation import Detections, GroundTruth

    generator = np.random.default_rng(0)
    ego = generator.uniform(0, 1000, (samples, 3))
    truth = random_objects(np.repeat(np.arange(samples), OBJECTS_PER_SAMPLE), ego, generator)
    found = random_objects(np.repeat(np.arange(samples), BOXES_PER_SAMPLE), ego, generator)
    near = generator.permuted(
        np.tile(np.arange(BOXES_PER_SAMPLE) < BOXES_PER_SAMPLE // 2, (samples, 1)), axis=1
    ).ravel()
    source = found["sample"][near] * OBJECTS_PER_SAMPLE + generator.integers(0, OBJECTS_PER_SAMPLE, near.sum())
    for name in ("label", "size", "rotation", "velocity", "attribute"):
        found[name][near] = truth[name][source]
    found["translation"][near] = truth["translation"][source] + generator.normal(0, 1, (near.sum(), 3))
    score = generator.random(len(near)) * np.where(near, 1, 0.7)
    return GroundTruth(**truth, num_points=np.ones(len(truth["sample"]), int)), Detections(**found, score=score), ego


def random_objects(sample: np.ndarray, ego: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the columns of random objects around the ego positions of their samples."""
    count = len(sample)
    half = generator.uniform(-math.pi, math.pi, count) / 2
    zero = np.zeros(count)
    return {
        "sample": sample,
        "translation": ego[sample] + generator.uniform(-40, 40, (count, 3)) * [1, 1, 0.05],
        "size": generator.uniform(0.5, 5, (count, 3)),
        "rotation": np.stack([np.cos(half), zero, zero, np.sin(half)], axis=1),
        "velocity": generator.normal(0, 3, (count, 2)),
        "label": generator.integers(0, 10, count),
        "attribute": generator.integers(0, 8, count),
    }


def devkit_metric(ground_truth: Any, detections: Any, ego: np.ndarray) -> dict[str, Function]:
    """Return the development kit's evaluation where it is installed; building its boxes is not timed."""
    if importlib.util.find_spec("nuscenes") is None:
        return {}
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
    from nuscenes.eval.detection.evaluate import DetectionEval

    tables = EgoTables(ego)
    config = config_factory("detection_cvpr_2019")

    def evaluate() -> Any:
        sets = [add_center_dist(tables, boxes) for boxes in (truth, found)]
        kept = [filter_eval_boxes(tables, boxes, config.class_range) for boxes in sets]
        run = SimpleNamespace(cfg=config, gt_boxes=kept[0], pred_boxes=kept[1], verbose=False)
        return DetectionEval.evaluate(run)

    truth, found = devkit_boxes(ground_truth, len(ego)), devkit_boxes(detections, len(ego))
    return {"nuscenes-devkit": evaluate}


class EgoTables:
    """What the development kit asks its data set for: ego positions, and annotations (bicycle racks: none)."""

    def __init__(self, ego: np.ndarray) -> None:
        self.ego = ego

    def get(self, table: str, token: str) -> dict[str, Any]:
        """Return a record; a sample, its scan and its pose share a token."""
        if table == "sample":
            return {"data": {"LIDAR_TOP": token}, "anns": []}
        if table == "sample_data":
            return {"ego_pose_token": token}
        return {"translation": self.ego[int(token)].tolist()}


def devkit_boxes(table: Any, samples: int) -> Any:
    """Return a table as the development kit's ``EvalBoxes``."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    from sparse3d.datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES

    by_sample: list[list[Any]] = [[] for _ in range(samples)]
    names = ("sample", "translation", "size", "rotation", "velocity", "label", "attribute")
    own = "num_points" if hasattr(table, "num_points") else "score"
    key = {"num_points": "num_pts", "score": "detection_score"}[own]
    columns = (getattr(table, name).tolist() for name in (*names, own))
    for sample, translation, size, rotation, velocity, label, attribute, value in zip(*columns, strict=True):
        box = DetectionBox(
            sample_token=str(sample),
            translation=translation,
            size=size,
            rotation=rotation,
            velocity=velocity,
            detection_name=DETECTION_CLASSES[label],
            attribute_name=ATTRIBUTES[attribute],
            **{key: value},
        )
        by_sample[sample].append(box)
    boxes = EvalBoxes()
    for sample, own_boxes in enumerate(by_sample):
        boxes.add_boxes(str(sample), own_boxes)
    return boxes
