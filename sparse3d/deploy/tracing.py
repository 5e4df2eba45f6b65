"""Tracing: a module of named tensors -> an ONNX file with open dimensions, no weight of which is lost."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .inputs import PointInputs
from .named import Named, Shape

OPSET = 20
COUNTER = "num_batches_tracked"  # of BatchNorm; no inference reads it


def write_graph(
    graph: nn.Module, inputs: Named, shapes: Mapping[str, Shape], limits: Mapping[str, int], path: Path
) -> None:
    """Trace a graph with all its dimensions open and write it as ONNX.

    Args:
        graph: named tensors -> named tensors.
        inputs: to trace it with; no dimension of another extent than 0 and 1 is taken for a constant.
        shapes: of each input, with the names of open dimensions.
        limits: name of a dimension -> its largest extent.
        path: file to write.

    Raises:
        ValueError: if a weight does not reach the graph.
    """
    dims = {name: Dim(name, max=limit) for name, limit in limits.items()}
    dynamic = {
        name: {axis: dims[extent] for axis, extent in enumerate(shape) if isinstance(extent, str)}
        for name, shape in shapes.items()
    }
    with torch.no_grad(), quiet():
        program = torch.export.export(graph, (), {"named": inputs}, dynamic_shapes={"named": dynamic}, strict=False)
        check_weights(program)
        exported = torch.onnx.export(
            program,
            (),
            kwargs={"named": inputs},
            dynamic_shapes={"named": dynamic},  # of no effect on a traced program but for the names of its dimensions
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(graph(inputs)),
            external_data=False,
            verbose=False,
        )
    exported.save(path, external_data=False)


def tracing_points(prepare: PointInputs) -> Tensor:
    """Return points for which no dimension of the inputs is 0 or 1: those would be taken for constants.

    Some are spread over the grid, few enough to let voxels grow; the others crowd in one voxel and fill all levels of
    the tables of maxima.
    """
    generator = torch.Generator().manual_seed(0)
    lower, upper = torch.tensor(prepare.grid.lower), torch.tensor(prepare.grid.upper)
    spread = lower + (upper - lower) * torch.rand(300, 3, generator=generator)
    crowd = lower + torch.tensor(prepare.grid.voxel_size) * torch.rand(1200, 3, generator=generator)
    xyz = torch.cat([spread, crowd])
    return torch.nn.functional.pad(xyz, (0, prepare.num_features - 3))


def check_weights(program: ExportedProgram) -> None:
    """Raise ``ValueError`` unless every parameter and every statistic of a norm takes part in the traced graph."""
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = {node.name: node for node in program.graph.nodes}
    unused = [name for node, name in weights.items() if not nodes[node].users and not name.endswith(COUNTER)]
    lost = [name for name in unused if name not in program.graph_signature.non_persistent_buffers]
    if lost:
        raise ValueError("export: these weights do not reach the graph:\n  " + "\n  ".join(lost))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of exporters off the console; their exceptions say what went wrong."""
    loggers = [logging.getLogger(name) for name in ("root", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
