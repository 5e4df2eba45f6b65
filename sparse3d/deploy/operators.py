"""Which nodes of a graph TensorRT does not take without a plugin, by its documentation.

The table is that of onnx-tensorrt for TensorRT 10 (opsets 9 to 20): what it lists as supported, and the restrictions
that it lists. It says nothing about speed, and later versions may take more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "onnx-tensorrt, docs/operators.md, TensorRT 10, opsets 9 to 20"
MAX_TOP_K = 3840

NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
    QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize ReverseSequence RoiAlign Round Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(NAMES.split())


@dataclass(frozen=True)
class Offence:
    """A node that TensorRT does not take."""

    node: str
    operator: str
    reason: str


class _Graph:
    """What the restrictions ask about a graph: attributes, constants, ranks."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._attribute_value = onnx.helper.get_attribute_value
        self._to_array = onnx.numpy_helper.to_array
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.constants = {each.name: each for each in inferred.initializer}
        for node in inferred.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        self.ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in values}

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        found = [self._attribute_value(each) for each in node.attribute if each.name == name]
        value = found[0] if found else default
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, node: Any, position: int) -> Any:
        """Return an input's value as an array; None where it is absent or computed."""
        name = node.input[position] if position < len(node.input) else ""
        return self._to_array(self.constants[name]) if name in self.constants else None

    def computed(self, node: Any, position: int) -> bool:
        """Whether an input is given but known only at run time."""
        return position < len(node.input) and bool(node.input[position]) and node.input[position] not in self.constants


Rule = Callable[[_Graph, Any], bool]


def _reduces(graph: _Graph, node: Any) -> bool:
    return graph.attribute(node, "reduction", "none") != "none"


def _large_top_k(graph: _Graph, node: Any) -> bool:
    count = graph.constant(node, 1)
    return count is None or int(count.reshape(-1)[0]) >= MAX_TOP_K


RULES: tuple[tuple[str, Rule, str], ...] = (
    ("ScatterND", _reduces, "a reduction is not supported"),
    ("ScatterElements", _reduces, "a reduction needs the ScatterElements plugin"),
    ("GridSample", lambda graph, node: graph.ranks.get(node.input[0]) != 4, "the input must be 4D"),
    ("TopK", _large_top_k, f"K must be known and less than {MAX_TOP_K}"),
    ("TopK", lambda graph, node: graph.attribute(node, "sorted", 1) != 1, "the result must be sorted"),
    ("LayerNormalization", lambda _, node: len(node.output) > 1, "only the first output is supported"),
    ("MaxPool", lambda _, node: len(node.output) > 1, "the output of indices is not supported"),
    *(
        (name, lambda graph, node, axes=position: graph.computed(node, axes), "axes must be known at build time")
        for name, position in {
            "CumSum": 1, "Pad": 3, "ReduceMax": 1, "ReduceMean": 1, "ReduceMin": 1, "ReduceSum": 1, "Slice": 3,
            "Squeeze": 1, "Unsqueeze": 1,
        }.items()
    ),
)  # fmt: skip


def check_operators(path: str | Path) -> list[Offence]:
    """Return the nodes of an ONNX file that TensorRT does not take without a plugin, each with the reason.

    Args:
        path: an ONNX file; graphs inside of control flow are looked at too.
    """
    import onnx

    model = onnx.load(str(path))
    graph = _Graph(model)
    return [offence for node in _nodes(model.graph) for offence in _offences(graph, node)]


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _nodes(inner)


def _offences(graph: _Graph, node: Any) -> Iterator[Offence]:
    if node.domain not in ("", "ai.onnx"):
        yield Offence(node.name, f"{node.domain}::{node.op_type}", "an operator of a domain of its own needs a plugin")
    elif node.op_type not in SUPPORTED:
        yield Offence(node.name, node.op_type, "not supported")
    else:
        for name, broken, reason in RULES:
            if name == node.op_type and broken(graph, node):
                yield Offence(node.name, node.op_type, reason)
