"""TensorRT: what it would not take, and the command that builds an engine."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.operators import Offence, check_operators
from sparse3d.deploy.tensorrt import installed, profile_shapes, write_script

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def write(tmp_path: Path, *nodes, inputs=(), constants=()) -> Path:
    """A graph of the given nodes; only its structure is looked at."""
    graph = onnx.helper.make_graph(
        list(nodes),
        "test",
        [onnx.helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid(domain, 20) for domain in ("", "autoware")]
        ),
        path,
    )
    return path


def test_an_exported_detector_has_no_offender(exported: Path) -> None:
    assert check_operators(exported / "model.onnx") == []


def test_an_operator_that_is_not_supported(tmp_path: Path) -> None:
    path = write(tmp_path, onnx.helper.make_node("Unique", ["x"], ["y"], name="u"), inputs=[("x", [4])])
    assert check_operators(path) == [Offence("u", "Unique", "not supported")]


@pytest.mark.parametrize(
    ("operator", "rank", "attributes", "reason"),
    [
        ("ScatterND", 2, {"reduction": "add"}, "a reduction is not supported"),
        ("ScatterElements", 2, {"reduction": "max"}, "a reduction needs the ScatterElements plugin"),
        ("GridSample", 5, {}, "the input must be 4D"),
    ],
)
def test_a_restriction(tmp_path: Path, operator: str, rank: int, attributes: dict, reason: str) -> None:
    arguments = ["x", "i", "x"] if operator.startswith("Scatter") else ["x", "i"]
    node = onnx.helper.make_node(operator, arguments, ["y"], name="n", **attributes)
    inputs = [("x", [2] * rank), ("i", [2] * rank)]
    assert check_operators(write(tmp_path, node, inputs=inputs)) == [Offence("n", operator, reason)]


@pytest.mark.parametrize(("count", "fits"), [(3839, True), (3840, False)])
def test_the_limit_of_top_k(tmp_path: Path, count: int, fits: bool) -> None:
    node = onnx.helper.make_node("TopK", ["x", "k"], ["y", "i"], name="t")
    path = write(tmp_path, node, inputs=[("x", [9000])], constants=[("k", np.array([count]))])
    assert (check_operators(path) == []) == fits


def test_an_operator_of_another_domain(tmp_path: Path) -> None:
    node = onnx.helper.make_node("ImplicitGemm", ["x"], ["y"], name="g", domain="autoware")
    (offence,) = check_operators(write(tmp_path, node, inputs=[("x", [4])]))
    assert (offence.operator, "plugin" in offence.reason) == ("autoware::ImplicitGemm", True)


def test_nodes_inside_of_control_flow_are_looked_at(tmp_path: Path) -> None:
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Unique", ["x"], ["z"], name="inner")],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("z", FLOAT, None)],
    )
    node = onnx.helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch)
    path = write(tmp_path, node, inputs=[("x", [4])], constants=[("c", np.array(True))])
    assert {offence.node for offence in check_operators(path)} == {"inner"}


def test_the_command_covers_every_input(exported: Path, copied: Path) -> None:
    script = write_script(copied)
    assert script.stat().st_mode & stat.S_IXUSR
    text, manifest = script.read_text(), Manifest.read(exported)
    (graph,) = manifest.graphs
    for option in ("minShapes", "optShapes", "maxShapes"):
        (line,) = (line for line in text.splitlines() if f"--{option}=" in line)
        parts = dict(part.split(":") for part in line.split("=", 1)[1].removesuffix(" \\").split(","))
        assert set(parts) == {spec.name for spec in graph.inputs}
        assert all(int(number) > 0 for shape in parts.values() for number in shape.split("x"))
    for spec in graph.inputs:
        low, typical, high = profile_shapes(manifest, spec)
        assert all(a <= b <= c for a, b, c in zip(low, typical, high, strict=True))
    assert "stronglyTyped" not in text
    assert not installed() or "model.plan" in text
