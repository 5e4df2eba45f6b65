"""Writing a sparse encoder in the dialect of Autoware's plugins; see `autoware.py`.

The module that is traced takes what the pair nodes make as inputs; the nodes are put in their place when it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sparse3d_ops.sparse import SparseModule
from sparse3d_ops.sparse.modules import Convolution

from .autoware import DOMAIN, GEMM, PAIRS, check_nodes, gemm_attributes, pair_attributes, tensors_of
from .named import Named, Shape
from .sparse_graph import GraphTensor
from .table_inputs import Table, TableIndexing
from .tracing import write_graph

COORDS = "voxel_coords"


class PluginConvolution(SparseModule):
    """A sparse convolution as a node of the plugin's.

    Args:
        convolution: with its norm folded into it.
        table: which pairs it reads.
    """

    def __init__(self, convolution: Convolution, table: Table) -> None:
        super().__init__()
        self.table = table
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: GraphTensor) -> GraphTensor:
        """Convolve, in a graph; PyTorch itself does not know the operator."""
        _, pairs, masks, order, _ = (x.named.get(name) for name in tensors_of(self.table.name))
        out = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{GEMM}",
            (x.features, self.weight, pairs, masks, order),
            attrs=gemm_attributes(self.table.is_submanifold),
            dtype=x.features.dtype,
            shape=(pairs.shape[1], self.weight.shape[0]),
            version=1,
        )
        return x.replace_features(out if self.bias is None else out + self.bias)


class PluginGraph(nn.Module):
    """A ``SparseGraph`` of plugin nodes that reads the cells of the map from coordinates.

    Args:
        graph: made with ``PluginConvolution``.
        indexing: of the same encoder with tables.
    """

    def __init__(self, graph: nn.Module, indexing: TableIndexing) -> None:
        super().__init__()
        self.network, self.indexing = graph, indexing  # not "graph": what is traced has one
        self.layers, self.height, self.width = graph.map_shape

    def forward(self, named: Named) -> Named:
        """Return what the head makes of voxels; ``named`` holds features, pairs, and the last level's coordinates."""
        _, z, y, x = named[_last_coords(self.indexing)].unbind(1)
        cells = (y * self.width + x) * self.layers + z
        return self.network({**named, "bev_cells": cells})


def write(graph: PluginGraph, tables: Named, limits: Mapping[str, int], path: Path) -> None:
    """Trace a graph and write it with the nodes that find pairs.

    Args:
        graph: to be written.
        tables: the inputs of the same graph with tables, to trace it with.
        limits: largest extent of each level.
        path: file to write.
    """
    indexing = graph.indexing
    inputs = _traced_inputs(indexing, tables, graph.layers, graph.width)
    shapes = _traced_shapes(indexing, tables["voxel_features"].shape[1])
    write_graph(graph, inputs, shapes, limits, path)
    _insert_pairs(indexing, path)


def _traced_inputs(indexing: TableIndexing, tables: Named, layers: int, width: int) -> Named:
    named = {"voxel_features": tables["voxel_features"]}
    for table in indexing.segments[0].tables:
        _, pairs, masks, order, _ = tensors_of(table.name)
        named[pairs] = (tables[table.name] - 1).T.contiguous()
        named[masks] = named[pairs].new_zeros(named[pairs].shape[1], 1)
        named[order] = torch.arange(named[pairs].shape[1], dtype=torch.int32)
    layer, cell = tables["bev_cells"] % layers, tables["bev_cells"] // layers
    named[_last_coords(indexing)] = torch.stack([layer * 0, layer, cell // width, cell % width], dim=1)
    return named


def _traced_shapes(indexing: TableIndexing, channels: int) -> dict[str, Shape]:
    segment = indexing.segments[0]
    shapes: dict[str, Shape] = {"voxel_features": ("voxels_0", channels)}
    for table in segment.tables:
        voxels = f"voxels_{table.target}"
        _, pairs, masks, order, _ = tensors_of(table.name)
        shapes.update({pairs: (table.geometry.volume, voxels), masks: (voxels, 1), order: (voxels,)})
    return {**shapes, _last_coords(indexing): (f"voxels_{segment.last}", 4)}


def _last_coords(indexing: TableIndexing) -> str:
    segment = indexing.segments[0]
    (table,) = (each for each in segment.tables if each.target == segment.last and not each.is_submanifold)
    return tensors_of(table.name)[0]


def _insert_pairs(indexing: TableIndexing, path: Path) -> None:
    """Replace the inputs that hold pairs by the nodes that find them."""
    import onnx

    model = onnx.load(str(path))
    shapes, nodes, coords = indexing.level_shapes(), [], {0: COORDS}
    for table in indexing.segments[0].tables:
        outputs = tensors_of(table.name)
        attributes = pair_attributes(table.geometry, shapes[table.source], table.is_submanifold)
        name = f"{table.name}_pairs"
        nodes.append(onnx.helper.make_node(PAIRS, [coords[table.source]], outputs, name, domain=DOMAIN, **attributes))
        if not table.is_submanifold:
            coords[table.target] = outputs[0]
    made = {name for node in nodes for name in node.output}
    kept = [each for each in model.graph.input if each.name not in made]
    kept.append(onnx.helper.make_tensor_value_info(COORDS, onnx.TensorProto.INT32, ["voxels_0", 4]))
    others = list(model.graph.node)
    for field, values in (("input", kept), ("node", [*nodes, *others])):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    onnx.save(model, str(path))
    faults = check_nodes(path)
    if faults:
        raise ValueError("export: nodes that Autoware's plugins would not take:\n  " + "\n  ".join(faults))
