"""The dialect of Autoware's plugins: what its creators list, and the same boxes from nodes that stand-ins compute."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch

from sparse3d.deploy import Runtime, tensorrt
from sparse3d.deploy.autoware import ATTRIBUTES, DOMAIN, GEMM, PAIRS, check_nodes, count_nodes, pair_attributes
from sparse3d.deploy.graph import plan
from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.onnx import detect
from sparse3d.deploy.operators import check_operators
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.models import Detector3D
from sparse3d_ops.sparse import Geometry
from tests.models.build import random_sample


@pytest.fixture
def model(exported_plugins: Path) -> onnx.ModelProto:
    return onnx.load(str(exported_plugins / "model.onnx"))


def nodes(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, operator)]


def attribute(node: onnx.NodeProto, name: str):
    return next(onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name)


@pytest.mark.parametrize("num_points", [1500, 17, 0])
def test_boxes_are_those_of_training(exported_plugins: Path, sparse_detector: Detector3D, num_points: int) -> None:
    """The pairs come from the nodes' attributes, so a wrong stride or padding would show here."""
    points = random_sample(num_points, seed=7).points
    found, expected = Runtime(exported_plugins, threads=1)(points), detect(sparse_detector, points)
    assert compare_boxes(expected, found, TOLERANCES["fp32"]).complete


def test_the_graph_takes_features_and_coordinates(model: onnx.ModelProto) -> None:
    inputs = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in model.graph.input
    }
    assert inputs == {"voxel_features": ["voxels_0", 5], "voxel_coords": ["voxels_0", 4]}
    assert {each.domain: each.version for each in model.opset_import} == {"": 20, DOMAIN: 1}


def test_one_node_a_convolution_and_one_a_table(model: onnx.ModelProto) -> None:
    assert (len(nodes(model, GEMM)), len(nodes(model, PAIRS))) == (13, 8)
    weights = {each.name: list(each.dims) for each in model.graph.initializer}
    for node in nodes(model, GEMM):
        assert len(weights[node.input[1]]) == 5, "[out, kz, ky, kx, in]"
    made = {name: node for node in nodes(model, PAIRS) for name in node.output}
    for node in nodes(model, GEMM):
        pairs = {id(made[name]) for name in node.input[2:5]}
        assert len(pairs) == 1
        source = made[node.input[2]]
        assert attribute(node, "is_subm") == attribute(source, "subm")
        assert weights[node.input[1]][1:4] == list(attribute(source, "ksize"))


def test_the_published_attributes(exported_plugins: Path) -> None:
    assert check_nodes(exported_plugins / "model.onnx") == []
    assert count_nodes(exported_plugins / "model.onnx") == 21
    assert len(ATTRIBUTES[PAIRS]) == 12
    assert len(ATTRIBUTES[GEMM]) == 7


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda node: node.attribute.pop(), r"attribute \w+ is None, the plugin wants"),
        (
            lambda node: node.attribute.append(onnx.helper.make_attribute("bits", 8)),
            "attribute bits is int, .* wants None",
        ),
        (lambda node: setattr(node, "op_type", "Gemm"), "the plugins have no such operator"),
        (lambda node: node.input.append("more"), "inputs and 1 outputs, the plugin wants"),
    ],
    ids=["missing", "unknown", "operator", "arity"],
)
def test_what_the_check_finds(model: onnx.ModelProto, tmp_path: Path, change, fault: str) -> None:
    change(nodes(model, GEMM)[0])
    onnx.save(model, str(tmp_path / "model.onnx"))
    (found,) = check_nodes(tmp_path / "model.onnx")
    assert re.search(fault, found), found


def test_a_shape_that_does_not_follow_from_the_layer_before(exported_plugins: Path, model: onnx.ModelProto) -> None:
    """The stand-in holds each node to the extents that its input really has."""
    from sparse3d.deploy.autoware import find_pairs

    steps = [
        (
            node.input[0],
            list(node.output),
            {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute},
        )
        for node in nodes(model, PAIRS)
    ]
    steps[3][2]["spatial_shape"] = [10, 24, 32]
    coords = Runtime(exported_plugins, threads=1).prepare(random_sample(300).points).named["voxel_coords"]
    with pytest.raises(ValueError, match=r"spatial_shape is \[10, 24, 32\], its input's is"):
        find_pairs(steps, {"voxel_coords": coords})


def test_all_other_operators_are_standard(exported_plugins: Path) -> None:
    offences = check_operators(exported_plugins / "model.onnx")
    assert {each.operator for each in offences} == {f"{DOMAIN}::{GEMM}", f"{DOMAIN}::{PAIRS}"}


def test_the_command_asks_for_the_library(exported_plugins: Path) -> None:
    manifest = Manifest.read(exported_plugins)
    command = tensorrt.trtexec_command(manifest, manifest.graphs[0])
    assert "--staticPlugins=" in command
    assert "voxel_coords:8000x4" in command


def test_the_library_that_is_not_there(exported_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tensorrt.PLUGINS, raising=False)
    with pytest.raises(FileNotFoundError, match="set AUTOWARE_TENSORRT_PLUGINS to the path"):
        tensorrt.build_engines(exported_plugins)


def test_what_the_dialect_cannot_say(detector: Detector3D, focal_detector: Detector3D) -> None:
    with pytest.raises(ValueError, match="one of sparse convolutions; this detector has none"):
        plan(detector, dialect="autoware")
    with pytest.raises(ValueError, match=r"voxels that grow \(Focals Conv\) have no way"):
        plan(focal_detector, dialect="autoware")
    with pytest.raises(ValueError, match="kernels of up to 32 taps"):
        pair_attributes(Geometry.submanifold(3, 5), (41, 96, 128), True)


def test_half_precision_reads_metres_in_full(sparse_detector: Detector3D) -> None:
    network = plan(sparse_detector, "fp16", dialect="autoware").graphs[0].network
    assert {each.dtype for each in network.first.parameters()} == {torch.float32}
    assert {each.dtype for each in network.layers.parameters()} == {torch.float16}
