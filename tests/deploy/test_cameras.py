"""MatrixVT through the export: images and a rig in, boxes out, with standard operators alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.deploy import CameraScan, Runtime
from sparse3d.deploy.camera_graph import camera_inputs
from sparse3d.deploy.camera_inputs import CameraInputs
from sparse3d.deploy.graph import plan
from sparse3d.deploy.manifest import GOLDEN, Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes, relative_error
from sparse3d.deploy.rigs import make_images, make_rig
from sparse3d.deploy.sensor_scan import scan_from_arrays
from sparse3d.models import Detector3D
from sparse3d.structures import Boxes3D, Detections
from tests.models import test_matrixvt as small
from tests.models.build import CLASS_NAMES

from .conftest import see_something

SIZE, CAMERAS = (32, 64), 2


def scan(num_cameras: int = CAMERAS, seed: int = 0) -> CameraScan:
    rig = make_rig(num_cameras, SIZE)
    return CameraScan(make_images(rig, seed), rig)


@pytest.fixture(scope="module")
def camera_detector() -> Detector3D:
    """A detector whose norms have seen something, and whose deformable taps look elsewhere."""
    torch.manual_seed(0)
    detector = see_something(small.detector())
    for parameter in detector.image_branch.view_transform.depth_net.depth[4].offsets.parameters():
        nn.init.normal_(parameter, std=0.2)
    return detector


@pytest.fixture(scope="module")
def exported(camera_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cameras") / "model"
    parity = export_detector(camera_detector, CLASS_NAMES, scan(), folder, ExportOptions(name="tiny"))
    assert parity.boxes.complete and parity.boxes.pytorch > 0 and not parity.failures
    return folder


def test_the_graph_is_made_of_standard_operators(exported: Path) -> None:
    assert check_operators(exported / "model.onnx") == []
    manifest = Manifest.read(exported)
    assert manifest.dimensions == {} and manifest.preparation["type"] == "CameraInputs"
    assert [each.name for each in manifest.graphs[0].inputs] == ["images", "codes", "ring", "ray"]


def test_the_runtime_finds_what_the_detector_finds_with_any_calibration(
    exported: Path, camera_detector: Detector3D
) -> None:
    """Other images, and another rig than the one of the export, with a camera that sees nothing."""
    runtime, other = Runtime(exported, threads=1), scan(seed=1)
    turned = other.cameras.change_frame(torch.tensor([[0.8, -0.6, 0, 1], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    blind = turned.lidar2cam.clone()
    blind[1] = 0
    for cameras in (other.cameras, turned, replace(turned, lidar2cam=blind)):
        seen = CameraScan(other.images, cameras)
        found, expected = runtime(seen), detect(camera_detector, seen)
        assert len(found) == len(expected) > 0
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)


def test_a_rig_that_stays_costs_nothing(camera_detector: Detector3D) -> None:
    prepare = camera_inputs(camera_detector, scan())
    first, second = prepare(scan()).named, prepare(scan(seed=1)).named
    assert second["ray"] is first["ray"] and second["images"] is not first["images"]
    moved = replace(scan().cameras, intrinsics=1.1 * scan().cameras.intrinsics)
    assert not torch.equal(prepare(CameraScan(scan().images, moved)).named["codes"], first["codes"])
    assert {name: tuple(each.shape) for name, each in first.items()} == prepare.shapes()
    assert CameraInputs.from_json(prepare.to_json(), prepare.grid) == prepare


def test_the_golden_scan_is_whole(exported: Path) -> None:
    """Images and calibration: enough to run it again."""
    with np.load(exported / GOLDEN) as golden:
        again = scan_from_arrays(golden)
        boxes, scores, labels = (torch.from_numpy(golden[name]) for name in ("boxes", "scores", "labels"))
    assert torch.equal(again.images, scan().images) and again.cameras.names == scan().cameras.names
    expected = Detections(Boxes3D(boxes), scores, labels)
    assert compare_boxes(expected, Runtime(exported, threads=1)(again), TOLERANCES["fp32"]).complete


def test_half_precision_is_close(camera_detector: Detector3D) -> None:
    full, half = (plan(camera_detector, precision, scan=scan()) for precision in ("fp32", "fp16"))
    ((_, expected),), ((_, found),) = (run_pytorch(each, scan()) for each in (full, half))
    for name, each in expected.items():
        assert found[name].dtype == torch.float32
        assert relative_error(found[name], each) < 3e-2


def test_refusals(camera_detector: Detector3D) -> None:
    prepare = camera_inputs(camera_detector, scan())
    for wrong, message in (
        (CameraScan(scan().images.float(), scan().cameras), "got .* float32"),
        (CameraScan(scan().images[..., 1:], scan().cameras), r"images: expected \[2, 3, 32, 64\] uint8"),
        (torch.zeros(4, 5), "scan: expected a CameraScan, images and their cameras, got a Tensor"),
        (scan(3), r"images: expected \[2, 3"),
        (CameraScan(scan().images, scan(3).cameras), "cameras: expected 2, as there are images, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(wrong)
    with pytest.raises(ValueError, match="cameras take fp32 or fp16"):
        plan(camera_detector, "int8", scan=scan())
    with pytest.raises(ValueError, match="exported for the number and size of the images of a scan"):
        plan(camera_detector)
    rig = make_rig(1, (30, 64))
    with pytest.raises(ValueError, match="images of 30 x 64 are no multiples of 16"):
        camera_inputs(camera_detector, CameraScan(make_images(rig), rig))
