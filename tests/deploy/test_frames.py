"""SparseBEV through the export: images of two frames and their projections in, boxes out, with standard operators."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparse3d.deploy import CameraScan, Runtime
from sparse3d.deploy.frame_inputs import FrameInputs
from sparse3d.deploy.graph import plan
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.models import Detector3D
from tests.models import test_sparsebev as small
from tests.models.build import CLASS_NAMES

from .conftest import see_something


def scan(seed: int = 0, lag: float = 0.5) -> CameraScan:
    sample = small.sample_with(0, seed, small.rig(lag=lag))
    return CameraScan(sample.images, sample.cameras)


@pytest.fixture(scope="module")
def frame_detector() -> Detector3D:
    torch.manual_seed(0)
    detector = small.detector()
    detector.head.decoder = replace(detector.head.decoder, score_threshold=0.0)
    return see_something(detector)


@pytest.fixture(scope="module")
def exported(frame_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "model"
    parity = export_detector(frame_detector, CLASS_NAMES, scan(), folder, ExportOptions())
    assert parity.boxes.complete and parity.whole.complete and parity.boxes.pytorch > 5
    return folder


def test_the_graph_is_made_of_standard_operators(exported: Path) -> None:
    assert check_operators(exported / "model.onnx") == []
    manifest = Manifest.read(exported)
    assert manifest.dimensions == {} and manifest.head == "SparseBEVHead"
    assert [each.name for each in manifest.graphs[0].inputs] == ["images", "lidar2img", "ages"]


@pytest.mark.parametrize("lag", [0.5, 1.2])
def test_the_runtime_finds_what_the_detector_finds(exported: Path, frame_detector: Detector3D, lag: float) -> None:
    other = scan(1, lag)
    found, expected = Runtime(exported, threads=1)(other), detect(frame_detector, other)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert len(expected) > 5


def test_the_graphs_module_equals_the_detector(frame_detector: Detector3D) -> None:
    whole = plan(frame_detector, scan=scan())
    ((inputs, outputs),) = run_pytorch(whole, scan(2))
    found, expected = whole.outputs.decode(outputs, whole.prepare.grid), detect(frame_detector, scan(2))
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert {name: tuple(each.shape) for name, each in inputs.items()} == whole.prepare.shapes()


def test_preparation_survives_json(frame_detector: Detector3D) -> None:
    prepare = plan(frame_detector, scan=scan()).prepare
    values = json.loads(json.dumps(prepare.to_json()))
    assert FrameInputs.from_json(values, prepare.grid) == prepare
    with pytest.raises(ValueError, match="the model has one graph, there is none after graph 0"):
        prepare.go_on(0, prepare(scan()), {})
