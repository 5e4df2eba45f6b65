"""MV2D through the export: images and a rig in, proposals and boxes chosen between three graphs, boxes in space out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse3d.deploy import CameraScan, Runtime
from sparse3d.deploy.graph import Plan, plan
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.deploy.region_inputs import RegionInputs
from sparse3d.models import Detector3D
from tests.models import mv2d as small
from tests.models.build import CLASS_NAMES
from tests.models.test_sparsebev import rig, sample_with

from .conftest import see_something

FORMS: dict[str, dict[str, Any]] = {"regions": {}, "cells": small.TWO_FRAMES}


def scan(form: str = "regions", seed: int = 0, missing: tuple[int, ...] = ()) -> CameraScan:
    sample = sample_with(3, seed, rig(num_frames=2 if form == "cells" else 1))
    matrices, images = sample.cameras.lidar2cam.clone(), sample.images.clone()
    matrices[list(missing)], images[list(missing)] = 0, 0
    return CameraScan(images, replace(sample.cameras, lidar2cam=matrices))


def build(form: str) -> Detector3D:
    torch.manual_seed(0)
    return see_something(small.detector(**FORMS[form]))


@pytest.fixture(scope="module")
def region_detector() -> Detector3D:
    return build("regions")


@pytest.fixture(scope="module")
def exported(region_detector: Detector3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regions") / "model"
    parity = export_detector(region_detector, CLASS_NAMES, scan(), folder, ExportOptions())
    assert parity.boxes.complete and parity.whole.complete and parity.boxes.pytorch > 10
    return folder


def test_the_graphs_are_made_of_standard_operators(exported: Path) -> None:
    manifest = Manifest.read(exported)
    assert [graph.file for graph in manifest.graphs] == ["model_0.onnx", "model_1.onnx", "model_2.onnx"]
    for graph in manifest.graphs:
        assert check_operators(exported / graph.file) == []
    assert all(2 <= each.typical <= each.high for each in manifest.dimensions.values())


@pytest.mark.parametrize("missing", [(), (1,), (0, 1, 2)], ids=["all cameras", "two cameras", "no camera"])
def test_the_runtime_finds_what_the_detector_finds(
    exported: Path, region_detector: Detector3D, missing: tuple[int, ...]
) -> None:
    """Other images than those of the export; boxes in the image of a missing camera are no queries."""
    other = scan(seed=3, missing=missing)
    found, expected = Runtime(exported, threads=1)(other), detect(region_detector, other)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert (len(expected) == 0) == (len(missing) == 3)


# -- what happens between the graphs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_graphs_modules_equal_the_detector(form: str) -> None:
    """One frame and two; every input has the shape that is stated."""
    detector = build(form)
    whole = plan(detector, scan=scan(form))
    exchanges = run_pytorch(whole, scan(form, seed=2))
    found = whole.outputs.decode(exchanges[-1][1], whole.prepare.grid)
    assert compare_boxes(detect(detector, scan(form, seed=2)), found, TOLERANCES["fp32"]).complete
    limits = whole.prepare.limits()
    for number, (inputs, _) in enumerate(exchanges):
        shapes = whole.prepare.shapes(number)
        assert list(inputs) == list(shapes)
        for name, shape in shapes.items():
            for extent, size in zip(shape, inputs[name].shape, strict=True):
                assert 2 <= size <= limits[extent] if isinstance(extent, str) else size == extent, name


@pytest.mark.parametrize("form", FORMS)
def test_preparation_survives_json(form: str) -> None:
    prepare = plan(build(form), scan=scan(form)).prepare
    values = json.loads(json.dumps(prepare.to_json()))
    assert RegionInputs.from_json(values, prepare.grid) == prepare


def test_nothing_found_in_the_images(region_detector: Detector3D) -> None:
    """Two empty slots go through the last graph, and nothing comes out."""
    whole: Plan = plan(region_detector, scan=scan())
    prepare = replace(whole.prepare, detections=replace(whole.prepare.detections, score_threshold=1.0))
    *_, (inputs, outputs) = run_pytorch(replace(whole, prepare=prepare), scan())
    assert inputs["filled"].tolist() == [[False, False]]
    assert all(each.isfinite().all() for each in outputs.values())
    assert len(whole.outputs.decode(outputs, prepare.grid)) == 0


def test_a_rig_that_stays_costs_nothing(region_detector: Detector3D) -> None:
    prepare = plan(region_detector, scan=scan()).prepare
    first, second = prepare(scan()).named, prepare(scan(seed=1)).named
    assert second["rays"] is first["rays"] and second["images"] is not first["images"]
    cameras = scan().cameras
    moved = CameraScan(scan().images, replace(cameras, intrinsics=1.1 * cameras.intrinsics))
    assert not torch.equal(prepare(moved).named["rays"], first["rays"])


def test_half_precision_is_that_of_backbone_and_neck(region_detector: Detector3D) -> None:
    half = plan(region_detector, "fp16", scan=scan())
    images = half.graphs[0]
    assert {each.dtype for part in (images.backbone, images.neck) for each in part.parameters()} == {torch.float16}
    assert {each.dtype for each in half.graphs[2].parameters()} == {torch.float32}
    (_, expected), (_, found) = (run_pytorch(each, scan())[0] for each in (plan(region_detector, scan=scan()), half))
    for name, each in expected.items():
        error = (found[name] - each).abs().max() / each.abs().max().clamp(min=1)
        assert found[name].dtype == torch.float32 and 0 < float(error) < 3e-2, name


def test_a_2d_detector_without_a_way_into_a_graph() -> None:
    with pytest.raises(ValueError, match="the 2D detector is a SparseRCNN; known is FasterRCNN"):
        plan(small.detector(small.SPARSE_RCNN).eval(), scan=scan())
