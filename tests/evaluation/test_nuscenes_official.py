"""The whole way: predictions in LiDAR frames -> our metric and its result file -> the development kit on that file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.evaluation import NuScenesMetric
from sparse3d.structures import Boxes3D, Frame, InstanceData, Sample

SCENE = "scene-0103"  # of the split mini_val
ERROR_NAMES = {"trans_err": "mATE", "scale_err": "mASE", "orient_err": "mAOE", "vel_err": "mAVE", "attr_err": "mAAE"}


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "golden" / "nuscenes_synth"


def noisy_sample(frame: Frame, seed: int) -> Sample:
    """Annotations with noise, every third one twice, scores of two digits."""
    rng = np.random.default_rng(seed)
    names = [CATEGORY_TO_CLASS.get(name) for name in frame.annotations.categories]
    rows = np.array([row for row, name in enumerate(names) if name])
    rows = np.concatenate([rows, rows[::3]])
    boxes = frame.annotations.boxes[rows]
    boxes = boxes + rng.normal(0, [0.4, 0.4, 0.2, 0, 0, 0, 0.2, 0.3, 0.3], boxes.shape)
    boxes[:, 3:6] *= rng.uniform(0.8, 1.2, (len(boxes), 3))
    pred = InstanceData(
        boxes=Boxes3D(torch.tensor(boxes, dtype=torch.float32)),
        scores=torch.tensor(rng.random(len(boxes)).round(2), dtype=torch.float32),
        labels=torch.tensor([DETECTION_CLASSES.index(names[row]) for row in rows]),
    )
    return Sample.from_frame(frame).replace(pred=pred)


def test_the_development_kit_finds_the_same_numbers(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    path = tmp_path / "results.json"
    evaluator = Evaluator([NuScenesMetric(DETECTION_CLASSES, path)])
    frames = list(scene_frames(load_tables(root / "v1.0-mini", [SCENE]), SCENE, root))
    evaluator.process([noisy_sample(frame, seed) for seed, frame in enumerate(frames)])
    found = evaluator.evaluate(len(frames))

    official = NuScenes("v1.0-mini", str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    expected, _ = DetectionEval(official, config, str(path), "mini_val", str(tmp_path), verbose=False).evaluate()
    assert found["nuscenes/NDS"] == pytest.approx(expected.nd_score, abs=1e-9)
    assert found["nuscenes/mAP"] == pytest.approx(expected.mean_ap, abs=1e-9)
    assert 0.3 < expected.mean_ap < 0.95
    for error, name in ERROR_NAMES.items():
        assert found[f"nuscenes/{name}"] == pytest.approx(expected.tp_errors[error], abs=1e-9), name
    for name, ap in expected.mean_dist_aps.items():
        assert found[f"nuscenes/AP/{name}"] == pytest.approx(ap, abs=1e-9), name
