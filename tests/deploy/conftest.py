"""Small detectors, each exported once for all tests of this room: tracing and writing a graph takes several seconds."""

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
FINE_GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (0.2, 0.2, 0.15), stride=8)
MAX_VOXELS, MAX_POINTS = 3000, 4000
FINE_MAX_VOXELS = 8000  # a random sample has 1,400 voxels, and random weights let them grow tenfold


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


def sparse_config(**backbone: Any) -> dict[str, Any]:
    """The same with sparse convolutions, down to two layers at an eighth of the resolution."""
    dense = config()
    encoder = dict(grid=FINE_GRID, in_channels=5, channels=[8, 12, 16, 16], num_blocks=[1, 1, 1, 1], out_channels=16)
    branch = dict(
        type="SparseConvBranch",
        grid=FINE_GRID,
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features=5, max_points=3),
        backbone={"type": "SparseEncoder", **encoder, **backbone},
        bev_backbone=dict(
            type="SECONDBEVBackbone",
            in_channels=32,
            num_blocks=[1, 1],
            strides=[1, 2],
            channels=[16, 24],
            up_strides=[1, 2],
            up_channels=[12, 12],
        ),
    )
    return dict(
        dense,
        data_preprocessor=dict(type="Preprocessor", grid=FINE_GRID, num_features=5),
        point_branch=branch,
        head=dict(dense["head"], grid=FINE_GRID),
    )


def focal_config(**focal: Any) -> dict[str, Any]:
    """The same with voxels that grow behind the first two stages."""
    focal = {"top_k": True, "scale_by_importance": True, "enlarge_channels": 6, **focal}
    return sparse_config(type="FocalEncoder", block="plain", focal_stages=[1, 2], focal=focal)


def build(model: dict[str, Any]) -> Detector3D:
    """A detector whose norms have seen something."""
    torch.manual_seed(0)
    return see_something(MODELS.build(model))


def see_something(detector: Detector3D) -> Detector3D:
    """Give norms other statistics than those that they begin with."""
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


@pytest.fixture(scope="session")
def sparse_detector() -> Detector3D:
    return build(sparse_config())


@pytest.fixture(scope="session")
def focal_detector() -> Detector3D:
    return build(focal_config())


def export(detector: Detector3D, tmp_path_factory: pytest.TempPathFactory, **options: Any) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "model"
    options = ExportOptions(**{"max_voxels": FINE_MAX_VOXELS, "name": "tiny", **options})
    calibration = [random_sample(1500, seed=seed).points for seed in (1, 2)] if options.precision == "int8" else []
    export_detector(detector, CLASS_NAMES, random_sample(1500).points, folder, options, calibration)
    return folder


@pytest.fixture(scope="session")
def exported_tables(sparse_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(sparse_detector, tmp_path_factory)


@pytest.fixture(scope="session")
def exported_chain(focal_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(focal_detector, tmp_path_factory)


@pytest.fixture(scope="session")
def exported_plugins(sparse_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(sparse_detector, tmp_path_factory, dialect="autoware")


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))
