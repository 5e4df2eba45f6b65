"""Export: a detector -> a directory that `Runtime`, or a C++ program, can run.

The directory is written under another name and gets its own when it is whole and ONNX Runtime agrees with PyTorch on a
scan. Export fails where a weight does not reach the graph, or where the two differ by more than `parity.py` allows.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from sparse3d.models import Detector3D
from sparse3d.structures import Detections

from .graph import DetectorGraph, check_parts, point_inputs
from .inputs import Named, PointInputs
from .manifest import GOLDEN, GRAPH, PARITY, Dimension, Manifest, TensorSpec, checksum
from .parity import Parity, compare
from .runtime import Runtime

OPSET = 20
PARTIAL_SUFFIX = ".partial"
COUNTER = "num_batches_tracked"  # of BatchNorm; no inference reads it
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        precision: ``"fp32"`` or ``"fp16"``.
        max_voxels: voxels of a scan at most; None takes a default that fits the grid.
        max_points: points of a scan at most; None takes a default.
        name: name of the model in the manifest.
    """

    precision: str = "fp32"
    max_voxels: int | None = None
    max_points: int | None = None
    name: str = "detector"


def export_detector(
    detector: Detector3D,
    class_names: list[str],
    scan: Tensor,  # [P, F]
    directory: str | Path,
    options: ExportOptions | None = None,
) -> Parity:
    """Export a detector and check the result.

    Args:
        detector: with its trained weights; it is copied.
        class_names: names of the labels.
        scan: points of one scan, which become the golden input.
        directory: where to write; it must not exist yet.
        options: see ``ExportOptions``.

    Returns:
        How ONNX Runtime compares with PyTorch on the scan.

    Raises:
        FileExistsError: if the directory exists.
        ValueError: if a part of the detector cannot be exported, a weight does not reach the graph, the scan does not
            fit, or ONNX Runtime's results differ from PyTorch's.
        ModuleNotFoundError: if one of the packages of the ``deploy`` extra is missing.
    """
    check_packages()
    options, directory = options or ExportOptions(), Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists; remove it or give another --out")
    check_parts(detector)
    prepare = point_inputs(detector, options.max_voxels, options.max_points)
    inputs = prepare(scan)
    expected = run_pytorch(detector, inputs)
    graph = DetectorGraph(deepcopy(detector).eval(), options.precision)

    partial = directory.with_name(directory.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_graph(graph, prepare, partial / GRAPH)
    boxes = graph.outputs.decode(expected, prepare.grid)
    save_golden(partial / GOLDEN, scan, inputs, expected, boxes)
    manifest = _manifest(graph, prepare, class_names, options, inputs, expected)
    _seal(manifest, partial)
    parity = check_export(partial, expected)
    _seal(manifest, partial)
    partial.rename(directory)
    return parity


def check_packages() -> None:
    """Raise ``ModuleNotFoundError`` unless all packages that exporting needs are installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"exporting needs {', '.join(missing)}: pip install 'sparse3d[deploy]'")


@torch.no_grad()
def run_pytorch(detector: Detector3D, inputs: Named) -> Named:
    """Return the outputs of a detector's graph as PyTorch computes them in float32."""
    return DetectorGraph(detector.eval())(inputs)


# -- the graph --------------------------------------------------------------------------------------------------------


def write_graph(graph: DetectorGraph, prepare: PointInputs, path: Path) -> None:
    """Trace a graph with all its dimensions open and write it as ONNX.

    Raises:
        ValueError: if a weight does not reach the graph.
    """
    limits, shapes = prepare.limits(), prepare.shapes()
    inputs = prepare(tracing_points(prepare))
    dims = {name: Dim(name, max=limit) for name, limit in limits.items()}
    dynamic = {
        name: {axis: dims[extent] for axis, extent in enumerate(shape) if isinstance(extent, str)}
        for name, shape in shapes.items()
    }
    with torch.no_grad(), _quiet():
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

    Half of them are spread over the grid; the others crowd in one voxel and fill all levels of the tables of maxima.
    """
    generator = torch.Generator().manual_seed(0)
    lower, upper = torch.tensor(prepare.grid.lower), torch.tensor(prepare.grid.upper)
    spread = lower + (upper - lower) * torch.rand(1200, 3, generator=generator)
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
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off the console; its exceptions say what went wrong."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
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


# -- golden data and parity -------------------------------------------------------------------------------------------


def save_golden(path: Path, scan: Tensor, inputs: Named, outputs: Named, boxes: Detections) -> None:
    """Write a scan, what the graph takes and returns for it, and the boxes that these outputs stand for."""
    arrays = {f"in/{name}": each.numpy() for name, each in inputs.items()}
    arrays.update({f"out/{name}": each.numpy() for name, each in outputs.items()})
    found = {"boxes": boxes.boxes.numpy(), "scores": boxes.scores.numpy(), "labels": boxes.labels.numpy()}
    np.savez_compressed(path, points=scan.numpy(), **found, **arrays)


def check_export(folder: Path, expected: Named) -> Parity:
    """Run an exported folder on its golden scan through the runtime, and write parity.json.

    Raises:
        ValueError: if its results differ from PyTorch's.
    """
    runtime = Runtime(folder)
    with np.load(folder / GOLDEN) as golden:
        inputs = runtime.prepare(golden["points"])
    parity = compare(expected, runtime.run(inputs), runtime.outputs, runtime.grid, runtime.manifest.precision)
    (folder / PARITY).write_text(json.dumps(parity.to_json(), indent=1) + "\n", encoding="utf-8")
    if parity.failures:
        raise ValueError(
            f"ONNX Runtime differs from PyTorch; the graph is left in {folder} for inspection:\n  "
            + "\n  ".join(parity.failures)
        )
    return parity


# -- manifest ---------------------------------------------------------------------------------------------------------


def _manifest(
    graph: DetectorGraph,
    prepare: PointInputs,
    class_names: list[str],
    options: ExportOptions,
    inputs: Named,
    outputs: Named,
) -> Manifest:
    shapes, limits = prepare.shapes(), prepare.limits()
    typical = {
        extent: inputs[name].shape[axis]
        for name, shape in shapes.items()
        for axis, extent in enumerate(shape)
        if isinstance(extent, str)
    }
    grid = prepare.grid
    return Manifest(
        model=options.name,
        precision=options.precision,
        class_names=list(class_names),
        grid=dict(point_range=grid.point_range, voxel_size=grid.voxel_size, stride=grid.stride),
        preparation=prepare.to_json(),
        head=type(graph.head).__name__,
        decoding=graph.outputs.to_json(),
        inputs=[_spec(name, inputs[name], shapes[name]) for name in inputs],
        outputs=[_spec(name, each, tuple(each.shape)) for name, each in outputs.items()],
        dimensions={name: Dimension(low=0, typical=typical[name], high=limits[name]) for name in limits},
        opset=OPSET,
        versions={"python": platform.python_version(), "sparse3d": version("sparse3d"), **_versions()},
        checksums={},
    )


def _spec(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> TensorSpec:
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)


def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in PACKAGES}


def _seal(manifest: Manifest, folder: Path) -> None:
    """Write the manifest with the checksums of the other files."""
    files: dict[str, Any] = {
        path.name: checksum(path) for path in sorted(folder.iterdir()) if path.name in (GRAPH, GOLDEN, PARITY)
    }
    Manifest(**{**vars(manifest), "checksums": files}).write(folder)
