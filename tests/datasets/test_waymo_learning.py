"""From Waymo's files to its metric: a small detector learns a frame by heart, so all conventions on the way agree."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from sparse3d.config import load_config
from sparse3d.datasets import FrameIndex
from sparse3d.datasets.create_waymo import create_waymo_index
from sparse3d.datasets.transforms import Compose, LoadAnnotations
from sparse3d.evaluation import evaluate_waymo
from sparse3d.evaluation.waymo_tables import frame_detections, frame_ground_truth
from sparse3d.registry import MODELS
from sparse3d.structures import Frame, Sample
from tests.conftest import REPOSITORY

REACH, HEIGHT = 19.2, 4.0  # metres
MIN_POINTS = 10
ITERATIONS, RATE = 100, 2e-3


def learnable(frame: Frame) -> Frame:
    """The frame with the objects that are near and have points enough."""
    annotations = frame.annotations
    near = (np.abs(annotations.boxes[:, :2]) < REACH).all(axis=1)
    return replace(frame, annotations=annotations.select(near & (annotations.num_lidar_points >= MIN_POINTS)))


def test_a_frame_by_heart(synthetic_waymo: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic_waymo / "training", tmp_path / "training")
    create_waymo_index(tmp_path, workers=1)
    frame = learnable(FrameIndex(tmp_path / "sparse3d_train.arrow", tmp_path)[0])
    point_range = [-REACH, -REACH, -2.0, REACH, REACH, HEIGHT]
    config = load_config(REPOSITORY / "configs" / "demo" / "waymo_tiny.py", {"grid.point_range": point_range})
    init_default_scope(config.default_scope)
    MMLogger.get_instance("waymo_learning", log_level="ERROR")
    load, in_range = config.test_pipeline
    annotate = LoadAnnotations(config.class_names)
    sample = Compose([load, annotate, in_range])(Sample.from_frame(frame), np.random.default_rng(0))
    assert len(sample.gt) >= 3

    detector = MODELS.build(config.model)
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.3
    optimizer = torch.optim.AdamW(detector.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=ITERATIONS)
    for _ in range(ITERATIONS):
        batch = detector.data_preprocessor([sample], training=True)
        loss, _ = detector.parse_losses(detector.train()(**batch, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        pred = detector.eval().test_step([sample])[0].pred
    detections = frame_detections(frame, pred.boxes, pred.scores, pred.labels, config.class_names)
    result = evaluate_waymo(frame_ground_truth(frame.annotations, config.class_names), detections)
    present = {category.upper() for category in frame.annotations.categories} & {"VEHICLE", "PEDESTRIAN", "CYCLIST"}
    for name in present:
        row = result.rows[f"OBJECT_TYPE_TYPE_{name}_LEVEL_2"].average_precision
        assert row["AP"] > 0.8 and row["APH"] > 0.75, (name, dict(row))
