"""Int8: a graph with quantised convolutions and products, its scales measured on scans.

Weights are quantised channel by channel, activations tensor by tensor, both symmetric, as pairs of QuantizeLinear and
DequantizeLinear that TensorRT and ONNX Runtime understand alike. A weight's scale is its largest magnitude over 127, an
activation's the one whose clipping and rounding together cost the calibration scans the least squared error: their few
largest values are far above the rest. Zeros, which most of a map consists of, cost nothing. In float32 stay layers that
read metres, the first ones on a map, scores that decide where voxels grow, a head's last convolutions, and all other
operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .named import Named
from .tracing import quiet

FLOAT = 1  # onnx.TensorProto.FLOAT
QUANTISED = ("Conv", "ConvTranspose", "Gemm")
DECIDING = "scores."  # prefix of weights
LEVELS = 127  # of a magnitude
EXPONENTS, BINS = (-24.0, 24.0), 48 * 128  # of histograms of log2, whose bins are half a percent wide
CLIPS = np.linspace(0.02, 1, 99)  # thresholds tried, as parts of the largest magnitude
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

    model, feeds = onnx.load(str(path)), [{name: each.numpy() for name, each in feed.items()} for feed in feeds]
    kept = kept_nodes(model, is_first, is_last)
    read = {node.input[0] for node in model.graph.node if _is_quantised(node) and node.name not in kept}
    limits = {
        name: [{"quant_type": QuantType.QInt8, "rmin": np.float32(-limit), "rmax": np.float32(limit)}]
        for name, limit in measure(model, sorted(read), feeds).items()
    }
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
            nodes_to_exclude=kept,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={**OPTIONS, "TensorQuantOverrides": limits},
        )
    partial.rename(path)


def measure(model: Any, tensors: list[str], feeds: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Return the magnitude at which each tensor is clipped.

    Args:
        model: a float32 graph, whose outputs these tensors become beside its own.
        tensors: names of activations.
        feeds: inputs of the graph, one dictionary a calibration scan.
    """
    import onnx
    from onnxruntime import InferenceSession

    if not tensors:
        return {}
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    own = {each.name for each in model.graph.output}
    observed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in own)
    session = InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = {name: np.zeros(BINS) for name in tensors}  # histograms, as the values of all scans are gigabytes
    for feed in feeds:
        for name, values in zip(tensors, session.run(tensors, feed), strict=True):
            seen[name] += histogram(values)
    return {name: clipping_limit(counts) for name, counts in seen.items()}


def histogram(values: np.ndarray) -> np.ndarray:
    """Return how many values have which magnitude ``[BINS]``, zeros left out."""
    exponents = np.log2(np.abs(values[values != 0])).clip(*EXPONENTS)
    return np.histogram(exponents, BINS, EXPONENTS)[0]


def clipping_limit(counts: np.ndarray) -> float:
    """Return the magnitude where clipping and rounding together have the least squared error; 1 where there is none.

    Args:
        counts: ``[BINS]``, by ``histogram``.
    """
    if not counts.any():
        return 1.0
    low, high = EXPONENTS
    middles = 2.0 ** (low + (high - low) * (np.arange(BINS) + 0.5) / BINS)
    limits = CLIPS * middles[counts.nonzero()[0][-1]]
    excess = np.clip(middles[None] - limits[:, None], 0, None)  # of each bin beyond each limit
    steps = (limits / LEVELS)[:, None] * (excess == 0)
    return float(limits[((excess**2 + steps**2 / 12) @ counts).argmin()])


def kept_nodes(model: Any, is_first: bool, is_last: bool) -> list[str]:
    """Return the names of the convolutions and products that stay in float32."""
    kept = {node.name for node in model.graph.node if _is_quantised(node) and node.input[1].startswith(DECIDING)}
    if is_first:
        kept |= _first(model)
    return sorted(kept | _last(model) if is_last else kept)


def _is_quantised(node: Any) -> bool:
    return node.op_type in QUANTISED


def _first(model: Any) -> set[str]:
    """Return the names of the convolutions and products that read metres or a map, with none before them.

    Metres are what graphs take as floating-point numbers, a map is what features are scattered into: its first
    convolutions read what single points left there, which eight bits spoil more than anything behind them.
    """
    found, raw = set(), {each.name for each in model.graph.input if each.type.tensor_type.elem_type == FLOAT}
    for node in model.graph.node:  # in the order of computation
        if node.op_type == "ScatterND":
            raw.update(node.output)
        elif raw.isdisjoint(node.input):
            continue
        elif _is_quantised(node):
            found.add(node.name)
        else:
            raw.update(node.output)
    return found


def _last(model: Any) -> set[str]:
    """Return the names of the convolutions and products behind which there is no other."""
    found, read = set(), {each.name for each in model.graph.output}
    for node in reversed(model.graph.node):
        if not read.intersection(node.output):
            continue
        if _is_quantised(node):
            found.add(node.name)
        else:
            read.update(node.input)
    return found


def _reader(feeds: list[dict[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out one scan after another."""

        def __init__(self) -> None:
            self.rest = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next scan's inputs, None after the last."""
            return next(self.rest, None)

    return Reader()
