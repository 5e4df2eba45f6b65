"""Focals Conv-F through the export: a graph of the images, then a chain whose voxels look at its map as they grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparse3d.deploy import FusionScan, Runtime
from sparse3d.deploy.graph import plan
from sparse3d.deploy.look_inputs import LookInputs
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.models import Detector3D
from tests.models import fusion as small
from tests.models.build import CLASS_NAMES

from .conftest import FINE_GRID, FINE_MAX_VOXELS, build, focal_config


def scan(num_points: int = 900, missing: tuple[int, ...] = (), seed: int = 0) -> FusionScan:
    sample = small.sample_with(num_points=num_points, missing=missing, seed=seed)
    return FusionScan(sample.images, sample.cameras, sample.points)


def look_detector(fusion: str = "sum", focal_stages: tuple[int, ...] = ()) -> Detector3D:
    """The chain of `conftest.py`, whose first stage ends with a focal convolution that reads images."""
    config = focal_config()
    branch = config["point_branch"]
    image_focal = dict(top_k=True, scale_by_importance=True, weigh_foreground=False, image_fusion=fusion)
    backbone = dict(branch["backbone"], focal_stages=focal_stages, image_focal=image_focal)
    return build(
        dict(
            config,
            data_preprocessor=dict(type="Preprocessor", grid=FINE_GRID, num_features=5, images=dict(size_divisor=1)),
            image_branch=dict(
                type="ImageBranch",
                backbone=dict(type="ResNet", base_channels=4, out_stages=[0]),
                neck=dict(type="ReduceMap", in_channels=16, out_channels=8),
            ),
            point_branch=dict(
                branch, type="FocalFusionBranch", backbone=backbone, pixels=dict(min_depths={}, skip_first=True)
            ),
        )
    )


@pytest.fixture(scope="module")
def detector() -> Detector3D:
    return look_detector()


@pytest.fixture(scope="module")
def exported(detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks") / "model"
    parity = export_detector(detector, CLASS_NAMES, scan(), folder, ExportOptions(max_voxels=FINE_MAX_VOXELS))
    assert parity.boxes.complete and parity.boxes.pytorch > 10
    return folder


def test_the_chain_begins_with_the_images(exported: Path) -> None:
    graphs = Manifest.read(exported).graphs
    assert [[spec.name for spec in graph.inputs][:2] for graph in graphs[:2]] == [
        ["images"],
        ["voxel_features", "submanifold_0"],
    ]
    looking = [[spec.shape for spec in graph.inputs if spec.name == "image_features"] for graph in graphs]
    assert looking == [[], [("voxels_0", 8)], [("voxels_1", 8)]]
    for graph in graphs:
        assert check_operators(exported / graph.file) == []


@pytest.mark.parametrize("missing", [(), (0, 1, 2)], ids=["all cameras", "no camera"])
def test_the_runtime_finds_what_the_detector_finds(
    exported: Path, detector: Detector3D, missing: tuple[int, ...]
) -> None:
    other = scan(700, missing, seed=3)
    found, expected = Runtime(exported, threads=1)(other), detect(detector, other)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert len(expected) > 10


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("focal_stages", [(), (1, 2)], ids=str)
def test_the_graphs_modules_equal_the_detector(fusion: str, focal_stages: tuple[int, ...]) -> None:
    """Alone, and behind a focal convolution of the same stage that reads no images."""
    detector = look_detector(fusion, focal_stages)
    whole = plan(detector, max_voxels=FINE_MAX_VOXELS, scan=scan())
    exchanges = run_pytorch(whole, scan(seed=2))
    found = whole.outputs.decode(exchanges[-1][1], whole.prepare.grid)
    assert compare_boxes(detect(detector, scan(seed=2)), found, TOLERANCES["fp32"]).complete
    assert len(exchanges) == whole.prepare.num_graphs == 3 + len(focal_stages)
    limits = whole.prepare.limits()
    for number, (inputs, _) in enumerate(exchanges):
        shapes = whole.prepare.shapes(number)
        assert list(inputs) == list(shapes)
        for name, shape in shapes.items():
            for extent, size in zip(shape, inputs[name].shape, strict=True):
                assert size <= limits[extent] if isinstance(extent, str) else size == extent, name


def test_what_voxels_see_counts(detector: Detector3D) -> None:
    whole = plan(detector, max_voxels=FINE_MAX_VOXELS, scan=scan())
    dark = FusionScan(torch.zeros_like(scan().images), scan().cameras, scan().points)
    outputs = [run_pytorch(whole, each)[1][1]["scores"] for each in (scan(), dark)]
    assert not torch.equal(*outputs)


def test_preparation_survives_json(detector: Detector3D) -> None:
    prepare = plan(detector, max_voxels=100, scan=scan()).prepare
    values = json.loads(json.dumps(prepare.to_json()))
    assert LookInputs.from_json(values, prepare.grid) == prepare


def test_refusals(detector: Detector3D) -> None:
    with pytest.raises(ValueError, match="expected a FusionScan, points and images, got a Tensor"):
        plan(detector, max_voxels=100, scan=scan()).prepare(scan().points)
    with pytest.raises(ValueError, match="cameras take fp32 or fp16"):
        plan(detector, "int8", scan=scan())
