"""One small detector, exported once for all tests of this room: tracing and writing a graph takes several seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse3d.deploy.onnx import ExportOptions, export_detector
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from tests.models.build import CENTER_RANGE, CLASS_NAMES, random_sample, stage

GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (0.4, 0.4, 0.75), stride=4)
MAX_VOXELS, MAX_POINTS = 3000, 4000


def config() -> dict[str, Any]:
    """Everything that a graph can hold, in little: two stages with pooling between them."""
    stages = [
        stage(num_heads=8, num_blocks=1, window_shape=(8, 12, 12)),
        stage(num_heads=8, num_blocks=1, stride=(8, 1, 1)),
    ]
    return dict(
        type="Detector3D",
        data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=5),
        point_branch=dict(
            type="PointBranch",
            grid=GRID,
            voxel_encoder=dict(type="DynamicVoxelEncoder", grid=GRID, num_features=5, channels=[16, 16]),
            backbone=dict(type="DSVT", grid=GRID, stages=stages),
            bev_backbone=dict(
                type="ResidualBEVBackbone",
                in_channels=16,
                num_blocks=[0, 0],
                strides=[4, 2],
                channels=[16, 24],
                up_strides=[1, 2],
                up_channels=[12, 12],
            ),
        ),
        head=dict(
            type="CenterHead",
            grid=GRID,
            class_names=CLASS_NAMES,
            tasks=[["car", "truck"], ["bus", "pedestrian"]],
            in_channels=24,
            shared_channels=16,
            num_convs=1,
            num_heatmap_convs=1,
            extra_branches=["vel", "iou"],
            decoder=dict(center_range=CENTER_RANGE, top_k=60, iou_exponents=[0.5] * 4),
        ),
    )


def build(model: dict[str, Any]) -> Detector3D:
    """A detector whose norms have seen something."""
    torch.manual_seed(0)
    detector = MODELS.build(model)
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return detector.eval()


@pytest.fixture(scope="session")
def detector() -> Detector3D:
    return build(config())


@pytest.fixture(scope="session")
def exported(detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector's directory; tests that damage it copy it first."""
    folder = tmp_path_factory.mktemp("deploy") / "model"
    options = ExportOptions(max_voxels=MAX_VOXELS, max_points=MAX_POINTS, name="tiny")
    export_detector(detector, CLASS_NAMES, random_sample(1500).points, folder, options)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))
