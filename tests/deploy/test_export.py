"""Exporting: what is written, what is refused, and that nothing half-written stays."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import onnx
import pytest
import torch

from sparse3d.deploy.graph import plan
from sparse3d.deploy.inputs import PointInputs
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import detect, export_detector, run_pytorch
from sparse3d.deploy.tracing import check_weights
from sparse3d.models import Detector3D, Features
from tests.models.build import CLASS_NAMES, detector_config, random_sample, transfusion_config

from .conftest import GRID, MAX_POINTS, MAX_VOXELS, build


def test_the_directory_is_complete(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "deploy.json",
        "golden.npz",
        "model.onnx",
        "parity.json",
    ]
    assert json.loads((exported / "parity.json").read_text())["passed"]
    assert not list(exported.parent.glob("*.partial"))


def test_the_manifest_says_what_a_consumer_needs(exported: Path) -> None:
    manifest = Manifest.read(exported)
    assert manifest.class_names == CLASS_NAMES
    assert manifest.grid["voxel_size"] == [0.4, 0.4, 0.75]
    assert manifest.decoding["decoder"]["top_k"] == 60
    assert set(manifest.versions) == {"python", "sparse3d", "torch", "onnx", "onnxscript", "onnxruntime"}
    (graph,) = manifest.graphs
    named = {extent for spec in graph.inputs for extent in spec.shape if isinstance(extent, str)}
    assert named == set(manifest.dimensions)
    assert all(0 <= each.low < each.typical <= each.high for each in manifest.dimensions.values())
    assert manifest.dimensions["voxels_0"].high == MAX_VOXELS


def test_the_graph_names_its_dimensions(exported: Path) -> None:
    graph = onnx.load(str(exported / "model.onnx")).graph
    (spec,) = Manifest.read(exported).graphs
    shapes = {
        each.name: tuple(dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim)
        for each in graph.input
    }
    assert shapes == {each.name: each.shape for each in spec.inputs}
    assert [each.name for each in graph.output] == [each.name for each in spec.outputs]


@pytest.mark.parametrize("num_points", [5000, 40, 1])
def test_extents_stay_within_the_stated_limits(num_points: int) -> None:
    """The worst case of sets and chunks is stated, not guessed: no scan that fits the limits exceeds a dimension."""
    prepare = plan(build(detector_config()), max_voxels=3000, max_points=6000).prepare
    points = random_sample(num_points).points
    points[: num_points // 2] = points[0]
    inputs, limits = prepare(points).named, prepare.limits()
    for name, shape in prepare.shapes().items():
        assert len(shape) == inputs[name].ndim
        for extent, found in zip(shape, inputs[name].shape, strict=True):
            assert found <= limits[extent] if isinstance(extent, str) else found == extent


def test_preparation_survives_json() -> None:
    prepare = plan(build(detector_config()), max_voxels=100, max_points=200).prepare
    values = json.loads(json.dumps(prepare.to_json()))
    assert PointInputs.from_json(values, prepare.grid) == prepare


@pytest.mark.parametrize("config", [detector_config, transfusion_config])
def test_the_graphs_module_equals_the_detector(config) -> None:
    detector, points = build(config()), random_sample().points
    whole = plan(detector, max_voxels=3000)
    ((_, outputs),) = run_pytorch(whole, points)
    found, expected = whole.outputs.decode(outputs, whole.prepare.grid), detect(detector, points)
    torch.testing.assert_close(found.boxes.tensor, expected.boxes.tensor, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("head", ["center", "transfusion"])
def test_half_precision_stays_close(detector: Detector3D, head: str) -> None:
    """Float16 behind the voxel encoder, but for a head that computes with positions; outputs are float32."""
    if head == "transfusion":
        detector = build(transfusion_config())
    full, half = (plan(detector, precision, MAX_VOXELS, MAX_POINTS) for precision in ("fp32", "fp16"))
    end = half.graphs[0].map_graph
    assert next(end.bev_backbone.parameters()).dtype == torch.float16
    assert next(end.head.parameters()).dtype == (torch.float16 if head == "center" else torch.float32)
    ((_, expected),), ((_, found),) = (run_pytorch(each, random_sample(1500).points) for each in (full, half))
    expected, found = half.outputs.align(expected, found, 3e-2)
    for name, each in expected.items():
        if not each.is_floating_point():
            assert torch.equal(found[name], each)
            continue
        error = (found[name] - each).abs().max() / each.abs().max().clamp(min=1)
        assert found[name].dtype == torch.float32
        assert 0 < float(error) < 3e-2, name


def test_queries_are_compared_whatever_their_order() -> None:
    whole = plan(build(transfusion_config()), max_voxels=3000)
    ((_, outputs),) = run_pytorch(whole, random_sample().points)
    align = whole.outputs.align
    order = torch.randperm(outputs["heat"].shape[1])
    shuffled = {name: each[:, order] for name, each in outputs.items()}
    one, other = align(outputs, shuffled, 1e-4)
    assert all(torch.equal(one[name], other[name]) for name in outputs)

    edge = int(outputs["heat"][0].argmin())
    replaced = {name: each.clone() for name, each in outputs.items()}
    replaced["cells"][0, edge] += 1
    one, other = align(outputs, replaced, 1e-4)
    assert one["heat"].shape == other["heat"].shape == (1, len(order) - 1)
    middle = int(outputs["heat"][0].argmax())
    replaced["cells"][0, middle] += 1
    one, other = align(outputs, replaced, 1e-6)
    assert not torch.equal(one["cells"], other["cells"])


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_an_existing_directory_is_not_touched(exported: Path, detector: Detector3D) -> None:
    before = (exported / "deploy.json").read_bytes()
    with pytest.raises(FileExistsError, match="exists; remove it or give another --out"):
        export_detector(detector, CLASS_NAMES, random_sample().points, exported)
    assert (exported / "deploy.json").read_bytes() == before


def test_a_scan_that_does_not_fit(detector: Detector3D, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"points: expected \[P, 5\]"):
        export_detector(detector, CLASS_NAMES, torch.zeros(9, 3), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_weight_that_does_not_reach_the_graph() -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.forgotten = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    program = torch.export.export(Forgetful(), (torch.zeros(3, 2),))
    with pytest.raises(ValueError, match=r"do not reach the graph:\n  forgotten.weight\n  forgotten.bias"):
        check_weights(program)


def test_a_graph_that_computes_something_else(detector: Detector3D, tmp_path: Path, monkeypatch) -> None:
    """The comparison with ONNX Runtime is what decides; a wrong graph never gets its final name."""
    from sparse3d.deploy import onnx as module

    ((inputs, outputs),) = run_pytorch(plan(detector, "fp32", MAX_VOXELS, MAX_POINTS), random_sample().points)
    wrong = {**outputs, "task0_center": outputs["task0_center"] + 0.01}
    monkeypatch.setattr(module, "run_pytorch", lambda *_: [(inputs, wrong)])
    monkeypatch.setattr(module, "write_graphs", lambda *paths: (paths[-1] / "model.onnx").write_bytes(b"graph"))
    monkeypatch.setattr("sparse3d.deploy.runtime.open_graph", lambda *_: lambda inputs: outputs)
    with pytest.raises(ValueError, match=r"ONNX Runtime differs from PyTorch.*\n  task0_center differs by 1.0"):
        export_detector(detector, CLASS_NAMES, random_sample().points, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.partial"]


def test_parts_without_a_way_into_a_graph(detector: Detector3D, tmp_path: Path) -> None:
    class Other(torch.nn.Module):
        def forward(self, features: Features) -> None: ...

    changed = deepcopy(detector)
    changed.head = Other()
    with pytest.raises(ValueError, match="head is a Other; known are CenterHead, TransFusionHead"):
        export_detector(changed, CLASS_NAMES, random_sample().points, tmp_path / "model")
    changed = deepcopy(detector)
    changed.point_branch.backbone = Other()
    with pytest.raises(ValueError, match="backbone is a Other; known are DSVT, NoneType"):
        export_detector(changed, CLASS_NAMES, random_sample().points, tmp_path / "model")


def test_default_limits_follow_the_grid(detector: Detector3D) -> None:
    assert plan(detector).prepare.max_voxels == GRID.shape[0] * GRID.shape[1] * GRID.shape[2]
