"""SparseFusion through the export: points, images and a rig in, boxes out, with standard operators alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.deploy import CameraScan, FusionScan, Runtime
from sparse3d.deploy.fusion_inputs import FusionInputs
from sparse3d.deploy.graph import Plan, plan
from sparse3d.deploy.manifest import GOLDEN, Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.deploy.scans import as_scan
from sparse3d.deploy.sensor_scan import scan_from_arrays
from sparse3d.models import Detector3D
from tests.models import fusion as small
from tests.models.build import CLASS_NAMES

from .conftest import see_something

MAX_VOXELS = 4000


def scan(num_points: int = 900, missing: tuple[int, ...] = (), seed: int = 0) -> FusionScan:
    return as_scan(small.sample_with(num_points=num_points, missing=missing, seed=seed))


@pytest.fixture(scope="module")
def fusion_detector() -> Detector3D:
    torch.manual_seed(0)
    return see_something(small.detector())


@pytest.fixture(scope="module")
def whole(fusion_detector: Detector3D) -> Plan:
    return plan(fusion_detector, max_voxels=MAX_VOXELS, scan=scan())


@pytest.fixture(scope="module")
def exported(fusion_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fusion") / "model"
    parity = export_detector(fusion_detector, CLASS_NAMES, scan(), folder, ExportOptions(max_voxels=MAX_VOXELS))
    assert parity.boxes.complete and parity.whole.complete and parity.boxes.pytorch > 10
    return folder


def test_the_graph_is_made_of_standard_operators(exported: Path) -> None:
    assert check_operators(exported / "model.onnx") == []
    manifest = Manifest.read(exported)
    assert set(manifest.dimensions) == {"voxels_0", "voxels_1", "voxels_2", "looks", "cells"}
    assert manifest.preparation["type"] == "FusionInputs"


@pytest.mark.parametrize("num_points", [2000, 300])
@pytest.mark.parametrize("missing", [(), (1,), (0, 1, 2)], ids=["all cameras", "two cameras", "no camera"])
def test_the_runtime_finds_what_the_detector_finds(
    exported: Path, fusion_detector: Detector3D, num_points: int, missing: tuple[int, ...]
) -> None:
    """Other sensor data than those of the export, and any of it may be missing."""
    other = scan(num_points, missing, seed=3)
    found, expected = Runtime(exported, threads=1)(other), detect(fusion_detector, other)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert len(expected) > 0


def test_without_points_the_cameras_still_see(exported: Path, whole: Plan) -> None:
    """The LiDAR's map is the same everywhere, so its queries may start anywhere; those of cameras may not."""
    blind, runtime = scan(0), Runtime(exported, threads=1)
    found, ((_, expected),) = runtime.run(runtime.prepare(blind)), run_pytorch(whole, blind)
    assert torch.equal(found["camera_cells"], expected["camera_cells"].int())
    torch.testing.assert_close(found["camera_logits"], expected["camera_logits"], atol=1e-5, rtol=1e-4)
    assert runtime(blind).boxes.tensor.isfinite().all()


def test_the_golden_scan_is_whole(exported: Path) -> None:
    """Points, images and calibration: enough to run it again."""
    with np.load(exported / GOLDEN) as golden:
        again, boxes = scan_from_arrays(golden), torch.from_numpy(golden["boxes"])
    assert isinstance(again, FusionScan) and torch.equal(again.points, scan().points)
    assert torch.equal(again.images, scan().images) and again.cameras.names == scan().cameras.names
    assert len(Runtime(exported, threads=1)(again)) == len(boxes)


# -- the inputs --------------------------------------------------------------------------------------------------------


def test_the_graphs_module_equals_the_detector(whole: Plan, fusion_detector: Detector3D) -> None:
    ((inputs, outputs),) = run_pytorch(whole, scan(seed=2))
    found, expected = whole.outputs.decode(outputs, whole.prepare.grid), detect(fusion_detector, scan(seed=2))
    torch.testing.assert_close(found.boxes.tensor, expected.boxes.tensor, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.labels, expected.labels)
    shapes, limits = whole.prepare.shapes(), whole.prepare.limits()
    assert list(inputs) == list(shapes)
    for name, shape in shapes.items():
        for extent, size in zip(shape, inputs[name].shape, strict=True):
            assert size <= limits[extent] if isinstance(extent, str) else size == extent


def test_images_are_padded_as_in_training(fusion_detector: Detector3D) -> None:
    """The published images are four pixels narrower than the network's input."""
    full = scan()
    narrow = replace(
        full,
        images=full.images[..., :-4],
        cameras=replace(full.cameras, image_sizes=full.cameras.image_sizes - torch.tensor([0, 4])),
    )
    whole = plan(fusion_detector, max_voxels=MAX_VOXELS, scan=narrow)
    assert whole.prepare.images.image_size == (64, 92) and whole.prepare.images.input_size == (64, 96)
    ((inputs, outputs),) = run_pytorch(whole, narrow)
    assert (inputs["images"][..., -4:] == 0).all()
    found, expected = whole.outputs.decode(outputs, whole.prepare.grid), detect(fusion_detector, narrow)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete


def test_preparation_survives_json(whole: Plan) -> None:
    values = json.loads(json.dumps(whole.prepare.to_json()))
    assert FusionInputs.from_json(values, whole.prepare.grid) == whole.prepare


def test_candidates_are_compared_whatever_their_order(whole: Plan) -> None:
    ((_, outputs),) = run_pytorch(whole, scan())
    lidar, camera = torch.randperm(6), torch.randperm(8)
    orders = {"lidar": lidar, "camera": camera}
    shuffled = {
        name: each[:, orders.get(name.split("_")[0], torch.cat([lidar, 6 + camera]))] for name, each in outputs.items()
    }
    one, other = whole.outputs.align(outputs, shuffled, 1e-4)
    assert all(torch.equal(one[name], other[name]) for name in outputs)
    replaced = {name: each.clone() for name, each in outputs.items()}
    replaced["camera_cells"][0, int(outputs["camera_heat"][0].argmin())] += 1
    one, other = whole.outputs.align(outputs, replaced, 1e-4)
    assert one["camera_heat"].shape == other["camera_heat"].shape == (1, 7)
    assert one["logits"].shape == other["logits"].shape == (1, 13, len(CLASS_NAMES))


def test_half_precision_keeps_what_computes_with_positions(fusion_detector: Detector3D, whole: Plan) -> None:
    half = plan(fusion_detector, "fp16", MAX_VOXELS, scan=scan())
    graph = half.graphs[0]
    assert {each.dtype for each in graph.backbone.parameters()} == {torch.float16}
    assert {each.dtype for part in (graph.depth, graph.head) for each in part.parameters()} == {torch.float32}
    ((_, expected),), ((_, found),) = (run_pytorch(each, scan()) for each in (whole, half))
    expected, found = whole.outputs.align(expected, found, 3e-2)
    assert expected["lidar_heat"].shape == found["lidar_heat"].shape
    assert 0 < float((found["lidar_heat"] - expected["lidar_heat"]).abs().max()) < 3e-2


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_refusals(whole: Plan, fusion_detector: Detector3D) -> None:
    full = scan()
    for wrong, message in (
        (full.points, "expected a FusionScan, points and images, got a Tensor"),
        (CameraScan(full.images, full.cameras), "expected a FusionScan, points and images, got a CameraScan"),
        (replace(full, points=full.points[:, :4]), r"points: expected \[P, 5\]"),
        (replace(full, images=full.images[1:]), r"images: expected \[3, 3, 64, 96\] uint8, got \[2"),
    ):
        with pytest.raises(ValueError, match=message):
            whole.prepare(wrong)
    with pytest.raises(ValueError, match="cameras take fp32 or fp16"):
        plan(fusion_detector, "int8", scan=full)
    with pytest.raises(ValueError, match="exported for the number and size of the images of a scan"):
        plan(fusion_detector)
