"""Detectors with sparse convolutions: neighbour tables, growth between graphs, and training's boxes out of both."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sparse3d.deploy import Runtime
from sparse3d.deploy.graph import plan
from sparse3d.deploy.inputs import PointInputs
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import ExportOptions, detect, export_detector, quantize_graphs, run_pytorch
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes, compare_outputs
from sparse3d.deploy.runtime import open_graph
from sparse3d.deploy.sparse_graph import cut
from sparse3d.models import Detector3D
from sparse3d_ops.sparse import SparseTensor, SubMConv3d, submanifold_conv
from tests.models.build import CLASS_NAMES, random_sample

from .conftest import FINE_GRID, FINE_MAX_VOXELS, build, focal_config, sparse_config


@pytest.mark.parametrize("num_points", [1500, 300, 17, 1, 0])
@pytest.mark.parametrize("kind", ["tables", "chain"])
def test_boxes_are_those_of_training(request: pytest.FixtureRequest, kind: str, num_points: int) -> None:
    """Any number of voxels in the stated range; the graphs were traced with others."""
    folder = request.getfixturevalue(f"exported_{kind}")
    detector = request.getfixturevalue({"tables": "sparse_detector", "chain": "focal_detector"}[kind])
    points = random_sample(num_points, seed=7).points
    found, expected = Runtime(folder, threads=1)(points), detect(detector, points)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete
    assert len(expected) > 10


def test_the_graph_is_gathers_and_products(exported_tables: Path, sparse_detector: Detector3D) -> None:
    """One of each a convolution, no norm left, and nothing that TensorRT would not take."""
    nodes = [node.op_type for node in onnx.load(str(exported_tables / "model.onnx")).graph.node]
    convolutions = [each for each in sparse_detector.modules() if each.__class__.__name__.endswith("Conv3d")]
    assert nodes.count("Gather") == nodes.count("Gemm") == len(convolutions) == 13
    assert "BatchNormalization" not in nodes
    assert check_operators(exported_tables / "model.onnx") == []


def test_tables_are_shared_by_the_layers_of_a_level(exported_tables: Path) -> None:
    manifest = Manifest.read(exported_tables)
    (graph,) = manifest.graphs
    assert {spec.name: spec.shape for spec in graph.inputs} == {
        "voxel_features": ("voxels_0", 5),
        "submanifold_0": ("voxels_0", 27),
        "strided_1": ("voxels_1", 27),
        "submanifold_1": ("voxels_1", 27),
        "strided_2": ("voxels_2", 27),
        "submanifold_2": ("voxels_2", 27),
        "strided_3": ("voxels_3", 27),
        "submanifold_3": ("voxels_3", 27),
        "strided_4": ("voxels_4", 3),
        "bev_cells": ("voxels_4",),
    }
    assert manifest.dimensions["voxels_0"].high == FINE_MAX_VOXELS
    assert manifest.dimensions["voxels_1"].high == 2 * FINE_MAX_VOXELS
    assert manifest.dimensions["voxels_4"].high == 2 * 12 * 16, "never more than the grid has"


def test_a_table_says_what_a_convolution_reads(sparse_detector: Detector3D) -> None:
    """By hand: the product over gathered rows is the submanifold convolution, row 0 being the absent voxel."""
    feed = plan(sparse_detector).prepare(random_sample(500).points)
    features, table = feed.named["voxel_features"], feed.named["submanifold_0"]
    weight = torch.randn(4, 3, 3, 3, 5)
    rows = torch.cat([torch.zeros(1, 5), features])[table.long()]
    coords = plan(sparse_detector, dialect="autoware").prepare(random_sample(500).points).named["voxel_coords"]
    x = SparseTensor(features, coords, (41, 96, 128), 1)
    torch.testing.assert_close(rows.flatten(1) @ weight.flatten(1).T, submanifold_conv(x, weight).features)
    assert table.dtype == torch.int32
    assert torch.equal(table[:, 13], torch.arange(1, len(table) + 1, dtype=torch.int32)), (
        "the centre is the voxel itself"
    )


@pytest.mark.parametrize("num_points", [5000, 40, 1])
def test_extents_stay_within_the_stated_limits(num_points: int) -> None:
    prepare = plan(build(sparse_config()), max_voxels=6000).prepare
    inputs, limits = prepare(random_sample(num_points).points).named, prepare.limits()
    for name, shape in prepare.shapes().items():
        for extent, found in zip(shape, inputs[name].shape, strict=True):
            assert found <= limits[extent] if isinstance(extent, str) else found == extent


@pytest.mark.parametrize("config", [sparse_config, focal_config])
def test_preparation_survives_json(config) -> None:
    prepare = plan(build(config()), max_voxels=100).prepare
    values = json.loads(json.dumps(prepare.to_json()))
    assert PointInputs.from_json(values, prepare.grid) == prepare


def test_a_level_that_outgrows_its_range(exported_chain: Path) -> None:
    with pytest.raises(ValueError, match=r"voxels in level \d of the encoder, .* at most \d+; .* --max-voxels \d+"):
        Runtime(exported_chain, threads=1)(random_sample(6000, seed=3).points)


def test_too_many_voxels(exported_tables: Path) -> None:
    points = random_sample(3 * FINE_MAX_VOXELS).points
    with pytest.raises(ValueError, match=rf"voxels in the grid, .* at most {FINE_MAX_VOXELS}; .* --max-voxels"):
        Runtime(exported_tables, threads=1)(points)


# -- growth between graphs ---------------------------------------------------------------------------------------------


def test_voxels_grow_between_the_graphs_as_in_training(exported_chain: Path, focal_detector: Detector3D) -> None:
    """The sites on which the second and the third graph begin are those of the detector's focal convolutions."""
    grown = []
    focals = focal_detector.point_branch.backbone.focals
    handles = [
        each.register_forward_hook(lambda module, args, out: grown.append(len(out[0]))) for each in focals.values()
    ]
    points = random_sample(800, seed=5).points
    detect(focal_detector, points)
    for handle in handles:
        handle.remove()
    runtime = Runtime(exported_chain, threads=1)
    feed, begun = runtime.prepare(points), []
    for number, graph in enumerate(runtime.graphs[:-1]):
        feed = runtime.preparation.go_on(number, feed, graph(feed.named))
        begun.append(len(feed.named["voxel_features"]))
    assert begun == grown
    assert begun[0] > len(runtime.prepare(points).named["voxel_features"])


def test_a_chain_lists_its_graphs(exported_chain: Path) -> None:
    graphs = Manifest.read(exported_chain).graphs
    assert [graph.file for graph in graphs] == ["model_0.onnx", "model_1.onnx", "model_2.onnx"]
    for before, after in pairwise(graphs):
        assert [spec.name for spec in before.outputs] == ["features", "scores"]
        assert before.outputs[1].shape[1] == 27
        assert after.inputs[0].name == "voxel_features"
        assert before.outputs[0].shape[0] != after.inputs[0].shape[0], "another level, of more voxels"
    with np.load(exported_chain / "golden.npz") as golden:
        assert {f"{graph.stem}/in/voxel_features" for graph in graphs} <= set(golden.files)


def test_a_missing_graph_of_a_chain(exported_chain: Path, tmp_path: Path) -> None:
    for path in exported_chain.iterdir():
        if path.name != "model_1.onnx":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"model_1.onnx missing; the directory is incomplete"):
        Runtime(tmp_path)


def test_focal_graphs_equal_the_detector_whatever_the_options() -> None:
    """Without top-k, without enlargement, without importance: other proposals, other columns."""
    detector = build(focal_config(top_k=False, threshold=0.52, enlarge_channels=None, scale_by_importance=False))
    points = random_sample(600).points
    whole = plan(detector, max_voxels=FINE_MAX_VOXELS)
    *_, (_, outputs) = run_pytorch(whole, points)
    found, expected = whole.outputs.decode(outputs, whole.prepare.grid), detect(detector, points)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete


# -- precisions --------------------------------------------------------------------------------------------------------


def test_half_precision_keeps_metres_in_full(sparse_detector: Detector3D) -> None:
    full, half = (plan(sparse_detector, precision, FINE_MAX_VOXELS) for precision in ("fp32", "fp16"))
    assert {each.dtype for each in half.graphs[0].first.parameters()} == {torch.float32}
    assert {each.dtype for each in half.graphs[0].layers.parameters()} == {torch.float16}
    ((_, expected),), ((_, found),) = (run_pytorch(each, random_sample(1500).points) for each in (full, half))
    for name, each in expected.items():
        assert found[name].dtype == torch.float32
        assert 0 < float((found[name] - each).abs().max() / each.abs().max().clamp(min=1)) < 3e-2, name


@pytest.fixture(scope="module")
def quantised(focal_detector: Detector3D, exported_chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain's graphs, quantised on two other scans."""
    folder = Path(shutil.copytree(exported_chain, tmp_path_factory.mktemp("int8") / "model"))
    quantize_graphs(plan(focal_detector), [random_sample(1500, seed=seed).points for seed in (1, 2)], folder)
    return folder


def test_int8_quantises_all_but_what_it_must_not(quantised: Path) -> None:
    """Each convolution and product has quantised weights and inputs, but the ones that read metres, decide, or end."""
    kept = {}
    for path in sorted(quantised.glob("model_*.onnx")):
        graph = onnx.load(str(path)).graph
        makers = {name: node.op_type for node in graph.node for name in node.output}
        layers = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
        plain = [node for node in layers if makers.get(node.input[1]) != "DequantizeLinear"]
        assert all(makers.get(node.input[0]) == "DequantizeLinear" for node in layers if node not in plain)
        assert len(layers) > len(plain)
        kept[path.stem] = [node.input[1].split(".")[0] for node in plain]
    assert set(kept["model_0"]) == {"first", "scores"}
    assert set(kept["model_1"]) == {"scores"}
    assert kept["model_2"], "the head's last convolutions"


def test_int8_is_close(quantised: Path, focal_detector: Detector3D) -> None:
    """Each graph on PyTorch's inputs: eight bits leave a trace, and no more than that."""
    exchanges = run_pytorch(plan(focal_detector), random_sample(1500).points)
    for number, (inputs, expected) in enumerate(exchanges):
        run = open_graph(quantised / f"model_{number}.onnx", list(expected), "plain", threads=1)
        errors = compare_outputs(expected, run(inputs))
        assert 1e-4 < max(errors.values()) < 0.1, errors


def test_int8_needs_scans_to_measure(sparse_detector: Detector3D, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration scans are what int8 needs, got 0 for int8"):
        export_detector(
            sparse_detector, CLASS_NAMES, random_sample().points, tmp_path / "model", ExportOptions(precision="int8")
        )
    assert not list(tmp_path.iterdir())


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_convolution_without_a_table(sparse_detector: Detector3D) -> None:
    changed = deepcopy(sparse_detector)
    changed.point_branch.backbone.stages[0][0].conv1 = SubMConv3d(8, 8, 1)
    with pytest.raises(ValueError, match=r"export: SubMConv3d\(8, 8, \(1, 1, 1\).*\) has no way into a graph yet"):
        plan(changed)


def test_a_part_of_the_encoder_that_no_graph_holds(sparse_detector: Detector3D) -> None:
    changed = deepcopy(sparse_detector)
    changed.point_branch.backbone.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"do not reach a graph:\n  extra.weight\n  extra.bias"):
        cut(changed.point_branch.backbone)


def test_an_encoder_of_another_class(sparse_detector: Detector3D) -> None:
    """A subclass may compute something else; it is named rather than taken for what it derives from."""

    class Special(type(sparse_detector.point_branch.backbone)):
        pass

    changed = deepcopy(sparse_detector)
    changed.point_branch.backbone.__class__ = Special
    with pytest.raises(ValueError, match="backbone is a Special; known are SparseEncoder, FocalEncoder"):
        plan(changed)


def test_default_limits_follow_the_grid(sparse_detector: Detector3D) -> None:
    prepare = plan(sparse_detector).prepare
    assert prepare.max_voxels == 120_000
    assert prepare.grid == FINE_GRID
