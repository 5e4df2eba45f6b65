"""Int8: a graph with quantised convolutions and products, its scales measured on scans.

Weights are quantised channel by channel, activations tensor by tensor, both symmetric, as pairs of QuantizeLinear and
DequantizeLinear that TensorRT and ONNX Runtime understand alike. A scale is the largest magnitude that a tensor took in
the calibration scans over 127. In float32 stay layers that read metres, scores that decide where voxels grow, a head's
last convolutions, and all other operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .named import Named
from .tracing import quiet

QUANTISED = ("Conv", "ConvTranspose", "Gemm")
METRIC, DECIDING = ("encoder.", "first."), ("scores.",)  # prefixes of weights
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,  # TensorRT quantises weights itself
    "QuantizeBias": False,  # and wants biases as they are
}


def quantize(path: Path, feeds: Iterable[Named], is_first: bool, is_last: bool) -> None:
    """Quantise an ONNX file in place.

    Args:
        path: a float32 graph.
        feeds: inputs of the graph, one dictionary a calibration scan.
        is_first: whether it is the model's first graph, whose first layers are told metres.
        is_last: whether it is the last one, which ends with a head.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(path))
    partial = path.with_suffix(".int8")
    with quiet():
        quantize_static(
            model,
            str(partial),
            _reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=kept_nodes(model, is_first, is_last),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=OPTIONS,
        )
    partial.rename(path)


def kept_nodes(model: Any, is_first: bool, is_last: bool) -> list[str]:
    """Return the names of the convolutions and products that stay in float32."""
    prefixes, last = (*DECIDING, *(METRIC if is_first else ())), _last(model) if is_last else set()
    candidates = [node for node in model.graph.node if node.op_type in QUANTISED]
    return [node.name for node in candidates if node.input[1].startswith(prefixes) or node.name in last]


def _last(model: Any) -> set[str]:
    """Return the names of the convolutions and products behind which there is no other."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found, left, seen = set(), [each.name for each in model.graph.output], set()
    while left:
        node = makers.get(left.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in QUANTISED:
            found.add(node.name)
        else:
            left.extend(node.input)
    return found


def _reader(feeds: Iterable[Named]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out one scan after another."""

        def __init__(self) -> None:
            self.rest = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next scan's inputs, None after the last."""
            feed = next(self.rest, None)
            return None if feed is None else {name: each.numpy() for name, each in feed.items()}

    return Reader()
