"""The dialect of Autoware's TensorRT plugins: sparse convolutions as nodes that a C++ program in the field understands.

    autoware::GetIndicePairsImplicitGemm    coords of one level -> coords of the next, and who meets whom
    autoware::ImplicitGemm                  features, filters, pairs -> features

Names, attributes and the order of tensors are those of the package `autoware_tensorrt_plugins` (autoware_universe,
perception/), which wraps spconv: filters are ``[out, kz, ky, kx, in]``, coordinates int32 ``(batch, z, y, x)``. Its
creators list the attributes below; `do_sort` and `act_type` came later, and TensorRT does not hand to an older creator
what it does not list. Biases and ReLUs are nodes of their own, which every version understands.

The pairs of spconv are its own affair. To run such a graph without a GPU, `open_graph` stands in for both plugins: the
first is replaced by our kernel maps, built from the node's attributes, the second is a function of standard operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse3d_ops.sparse import Geometry, Sites

from .named import Graph, Named

DOMAIN = "autoware"
PAIRS, GEMM = "GetIndicePairsImplicitGemm", "ImplicitGemm"
MASK_IMPLICIT_GEMM = 1  # spconv's ConvAlgo, for kernels of up to 32 taps
MAX_TAPS = 32
MAX_LEVEL = 256_000  # voxels that a strided convolution may make: a constant of the plugin

INT, FLOAT, TRIPLE = "int", "float", "three ints"
ATTRIBUTES: dict[str, dict[str, str]] = {
    PAIRS: {
        **dict.fromkeys(("algo", "batch_size", "do_sort", "is_train", "subm", "transpose"), INT),
        **dict.fromkeys(("dilation", "ksize", "out_padding", "padding", "spatial_shape", "stride"), TRIPLE),
    },
    GEMM: {
        **dict.fromkeys(("act_type", "is_subm", "is_train"), INT),
        **dict.fromkeys(("act_alpha", "act_beta", "output_add_scale", "output_scale"), FLOAT),
    },
}
ARITY = {PAIRS: (1, 5), GEMM: (5, 1)}  # inputs, outputs; a sixth input, the bias, is known to newer versions only


def pair_attributes(geometry: Geometry, spatial_shape: Sequence[int], is_submanifold: bool) -> dict[str, Any]:
    """Return the attributes of a node that finds pairs; all extents are ``(z, y, x)``, the shape is the input's.

    Raises:
        ValueError: if the kernel has more taps than the algorithm takes.
    """
    if geometry.volume > MAX_TAPS:
        raise ValueError(f"export: the plugin takes kernels of up to {MAX_TAPS} taps, got {geometry.kernel_size}")
    return {
        "algo": MASK_IMPLICIT_GEMM,
        "batch_size": 1,
        "dilation": list(geometry.dilation),
        "do_sort": 1,
        "is_train": 0,
        "ksize": list(geometry.kernel_size),
        "out_padding": [0, 0, 0],
        "padding": list(geometry.padding),
        "spatial_shape": list(spatial_shape),
        "stride": list(geometry.stride),
        "subm": int(is_submanifold),
        "transpose": 0,
    }


def gemm_attributes(is_submanifold: bool) -> dict[str, Any]:
    """Return the attributes of a node that convolves, without activation."""
    scales = {"act_alpha": 0.0, "act_beta": 0.0, "output_add_scale": 1.0, "output_scale": 1.0}
    return {**scales, "act_type": 0, "is_subm": int(is_submanifold), "is_train": 0}


def tensors_of(node: str) -> tuple[str, str, str, str, str]:
    """Return the names of a pair node's outputs: coordinates, pairs, masks, order, number of voxels."""
    parts = ("coords", "pair_fwd", "pair_mask", "mask_argsort", "num_voxels")
    return tuple(f"{node}_{part}" for part in parts)  # type: ignore[return-value]


# -- the check against the published list ------------------------------------------------------------------------------


def check_nodes(path: str | Path) -> list[str]:
    """Return what is wrong with the plugin nodes of an ONNX file, in words.

    A node is wrong if the plugins know no such operator, if an attribute is missing, unknown, or of another type, or if
    it has another number of inputs or outputs.
    """
    import onnx

    nodes = [node for node in onnx.load(str(path)).graph.node if node.domain == DOMAIN]
    return [fault for node in nodes for fault in _faults(onnx, node)]


def count_nodes(path: str | Path) -> int:
    """Return the number of plugin nodes of an ONNX file."""
    import onnx

    return sum(node.domain == DOMAIN for node in onnx.load(str(path)).graph.node)


def _faults(onnx: Any, node: Any) -> Iterator[str]:
    name = f"{DOMAIN}::{node.op_type} {node.name}".rstrip()
    if node.op_type not in ATTRIBUTES:
        yield f"{name}: the plugins have no such operator; they have {', '.join(ATTRIBUTES)}"
        return
    found, wanted = {each.name: _kind(onnx, each) for each in node.attribute}, ATTRIBUTES[node.op_type]
    for attribute in sorted(found.keys() | wanted.keys()):
        if found.get(attribute) != wanted.get(attribute):
            yield f"{name}: attribute {attribute} is {found.get(attribute)}, the plugin wants {wanted.get(attribute)}"
    if (len(node.input), len(node.output)) != ARITY[node.op_type]:
        yield f"{name}: {len(node.input)} inputs and {len(node.output)} outputs, the plugin wants {ARITY[node.op_type]}"


def _kind(onnx: Any, attribute: Any) -> str:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.INTS and len(attribute.ints) == 3:
        return TRIPLE
    return {kinds.INT: INT, kinds.FLOAT: FLOAT}.get(attribute.type, kinds.AttributeType.Name(attribute.type))


# -- standing in for the plugins ---------------------------------------------------------------------------------------

STAND_IN = """
<domain: "autoware", opset_import: ["" : 20]>
ImplicitGemm <act_alpha, act_beta, act_type, is_subm, is_train, output_add_scale, output_scale>
(features, filters, pair_fwd, pair_mask, mask_argsort) => (out)
{
    width = Shape <start = 1> (features)
    one = Constant <value = int64[1] {1}> ()
    row = Concat <axis = 0> (one, width)
    zeros = ConstantOfShape (row)
    zero_row = CastLike (zeros, features)
    rows = Concat <axis = 0> (zero_row, features)
    first = Constant <value = int32[1] {1}> ()
    numbers = Add (pair_fwd, first)
    table = Transpose <perm = [1, 0]> (numbers)
    gathered = Gather <axis = 0> (rows, table)
    flat = Flatten <axis = 1> (gathered)
    matrix = Flatten <axis = 1> (filters)
    weight = Transpose <perm = [1, 0]> (matrix)
    out = MatMul (flat, weight)
}
"""


def open_graph(path: Path, outputs: Sequence[str], open_session: Any) -> Graph:
    """Open a graph with plugin nodes in ONNX Runtime, our kernels in the place of the plugins.

    Args:
        path: ONNX file.
        outputs: names of its outputs.
        open_session: serialized model -> session.
    """
    import onnx

    model = onnx.load(str(path))
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, PAIRS)]
    read = {name for node in model.graph.node for name in node.input}
    for node in nodes:
        model.graph.node.remove(node)
        inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None) for name in node.output]
        model.graph.input.extend(each for each in inputs if each.name in read)
    model.functions.append(onnx.parser.parse_function(STAND_IN))
    session = open_session(model.SerializeToString())
    steps = [(node.input[0], list(node.output), _attributes(onnx, node)) for node in nodes]
    wanted = {each.name for each in session.get_inputs()}

    def run(named: Named) -> Named:
        feed = {**named, **find_pairs(steps, named)}
        results = session.run(list(outputs), {name: each.numpy() for name, each in feed.items() if name in wanted})
        return {name: torch.from_numpy(each) for name, each in zip(outputs, results, strict=True)}

    return run


def find_pairs(steps: Sequence[tuple[str, list[str], Mapping[str, Any]]], named: Named) -> Named:
    """Return what the nodes that find pairs return, by our own kernel maps.

    Args:
        steps: of each node its input, its outputs and its attributes, in the order of the graph.
        named: the graph's inputs.
    """
    sites: dict[str, Sites] = {}
    found: Named = {}
    for source, outputs, attributes in steps:
        if source not in sites:
            sites[source] = Sites(named[source], attributes["spatial_shape"], 1)
        result, table = _meet(sites[source], attributes)
        sites[outputs[0]] = result
        rows = torch.arange(len(result), dtype=torch.int32)
        parts = (
            result.indices,
            table,
            torch.zeros(len(result), 1, dtype=torch.int32),
            rows,
            rows.new_tensor(len(result)),
        )
        found.update(zip(outputs, parts, strict=True))
    return found


def _meet(sites: Sites, attributes: Mapping[str, Any]) -> tuple[Sites, Tensor]:
    """Return the sites behind a node and its pairs ``[K, N]``."""
    if tuple(attributes["spatial_shape"]) != sites.spatial_shape:
        raise ValueError(
            f"{PAIRS}: spatial_shape is {attributes['spatial_shape']}, its input's is {sites.spatial_shape}"
        )
    size, dilation = attributes["ksize"], attributes["dilation"]
    if attributes["subm"]:
        return sites, sites.submanifold_map(Geometry.submanifold(3, size, dilation)).table()
    coarse = sites.coarsen(Geometry.of(3, size, attributes["stride"], attributes["padding"], dilation))
    assert coarse.origin is not None  # of sites that coarsen made
    return coarse, coarse.origin.kernel_map.table()


def _attributes(onnx: Any, node: Any) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
