"""Export: a detector -> a directory that `Runtime`, or a C++ program, can run.

The directory is written under another name and gets its own when it is whole and ONNX Runtime agrees with PyTorch on a
scan. Export fails where a weight does not reach its graph, or where the two differ by more than `parity.py` allows.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.models import Detector3D
from sparse3d.structures import Detections

from . import autoware_graph
from .graph import Plan, plan
from .manifest import (
    AUTOWARE,
    GOLDEN,
    PARITY,
    PLAIN,
    Dimension,
    GraphSpec,
    Manifest,
    TensorSpec,
    checksum,
    graph_files,
)
from .named import Named, Shape, run_graphs
from .parity import TOLERANCES, Parity, compare_boxes, compare_outputs
from .quantization import quantize
from .runtime import Runtime
from .scans import as_sample
from .sensor_scan import CameraScan, FusionScan, Scan, scan_to_arrays
from .tracing import OPSET, tracing_points, write_graph

PARTIAL_SUFFIX = ".partial"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")

Exchange = tuple[Named, Named]  # inputs and outputs of a graph


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        max_voxels: voxels of a scan at most; None takes a default that fits the grid.
        max_points: points of a scan at most; None takes a default.
        dialect: ``"plain"`` or ``"autoware"``, see ``plan``.
        name: name of the model in the manifest.
    """

    precision: str = "fp32"
    max_voxels: int | None = None
    max_points: int | None = None
    dialect: str = PLAIN
    name: str = "detector"


def export_detector(
    detector: Detector3D,
    class_names: list[str],
    scan: Scan,
    directory: str | Path,
    options: ExportOptions | None = None,
    calibration: Sequence[Tensor] = (),
) -> Parity:
    """Export a detector and check the result.

    Args:
        detector: with its trained weights; it is copied.
        class_names: names of the labels.
        scan: points ``[P, F]`` of one scan, what cameras see at one time, or both; it becomes the golden input.
        directory: where to write; it must not exist yet.
        options: see ``ExportOptions``.
        calibration: scans ``[P, F]`` like those that the model will meet, for int8.

    Returns:
        How ONNX Runtime compares with PyTorch on the scan.

    Raises:
        FileExistsError: if the directory exists.
        ValueError: if a part of the detector cannot be exported, a weight does not reach its graph, the scan does not
            fit, or ONNX Runtime's results differ from PyTorch's.
        ModuleNotFoundError: if one of the packages of the ``deploy`` extra is missing.
    """
    check_packages()
    options, directory = options or ExportOptions(), Path(directory)
    _check_options(options, calibration)
    if directory.exists():
        raise FileExistsError(f"{directory} exists; remove it or give another --out")
    limits, seen = (options.max_voxels, options.max_points), scan if isinstance(scan, CameraScan) else None
    reference = plan(detector, "fp32", *limits, PLAIN, seen)
    exported = plan(detector, options.precision, *limits, options.dialect, seen)
    exchanges, boxes = run_pytorch(reference, scan), detect(detector, scan)
    if options.dialect == AUTOWARE:  # the same network, told where its voxels are in another way
        exchanges = [(exported.prepare(scan).named, exchanges[0][1])]
    manifest = _manifest(exported, class_names, options, exchanges, type(detector.head).__name__)

    partial = directory.with_name(directory.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_graphs(reference, exported, tracing_scan(exported.prepare, scan), partial)
    if options.precision == "int8":
        quantize_graphs(reference, calibration, partial)
    save_golden(partial / GOLDEN, scan, manifest, exchanges, boxes)
    _seal(manifest, partial)
    parity = check_export(partial, scan, exchanges, boxes)
    _seal(manifest, partial)
    partial.rename(directory)
    return parity


def _check_options(options: ExportOptions, calibration: Sequence[Tensor]) -> None:
    if (options.precision == "int8") != bool(calibration):
        raise ValueError(
            f"export: calibration scans are what int8 needs, got {len(calibration)} for {options.precision}"
        )
    if options.precision == "int8" and options.dialect == AUTOWARE:
        raise ValueError("export: Autoware's plugins take float32 and half precision, not int8")


def check_packages() -> None:
    """Raise ``ModuleNotFoundError`` unless all packages that exporting needs are installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"exporting needs {', '.join(missing)}: pip install 'sparse3d[deploy]'")


@torch.no_grad()
def run_pytorch(reference: Plan, scan: Scan) -> list[Exchange]:
    """Return inputs and outputs of each graph as PyTorch computes them in float32."""
    return list(run_graphs(reference.prepare, reference.graphs, reference.prepare(scan)))


@torch.no_grad()
def detect(detector: Detector3D, scan: Scan) -> Detections:
    """Return what the detector itself finds in a scan."""
    found = detector.eval().test_step([as_sample(scan)])[0].pred
    return Detections(found.boxes, found.scores, found.labels)


# -- the graphs -------------------------------------------------------------------------------------------------------


def tracing_scan(prepare: Any, scan: Scan) -> Scan:
    """Return a scan for which no dimension of the inputs is 0 or 1; cameras are those of a given one."""
    if isinstance(scan, FusionScan):
        return replace(scan, points=tracing_points(prepare.points))
    return scan if isinstance(scan, CameraScan) else tracing_points(prepare)


def quantize_graphs(reference: Plan, calibration: Sequence[Tensor], folder: Path) -> None:
    """Quantise the graphs of a folder, their scales measured on scans."""
    exchanges = [run_pytorch(reference, scan) for scan in calibration]
    files = graph_files(len(reference.graphs))
    for number, file in enumerate(files):
        feeds = [each[number][0] for each in exchanges]
        quantize(folder / file, feeds, is_first=number == 0, is_last=file == files[-1])


def write_graphs(reference: Plan, exported: Plan, scan: Scan, folder: Path) -> None:
    """Trace the graphs of a plan on a scan and write them as ONNX into a folder.

    Raises:
        ValueError: if a weight does not reach its graph.
    """
    tracing = run_pytorch(reference, scan)
    if exported.dialect == AUTOWARE:
        autoware_graph.write(exported.graphs[0], tracing[0][0], reference.prepare.limits(), folder / graph_files(1)[0])
        return
    files = graph_files(len(exported.graphs))
    for number, (graph, file, (inputs, _)) in enumerate(zip(exported.graphs, files, tracing, strict=True)):
        write_graph(graph, inputs, exported.prepare.shapes(number), exported.prepare.limits(), folder / file)


# -- golden data and parity -------------------------------------------------------------------------------------------


def save_golden(path: Path, scan: Scan, manifest: Manifest, exchanges: list[Exchange], boxes: Detections) -> None:
    """Write a scan, what each graph takes and returns for it, and the boxes that the detector finds."""
    arrays = {
        f"{spec.stem}/{kind}/{name}": each.numpy()
        for spec, exchange in zip(manifest.graphs, exchanges, strict=True)
        for kind, named in zip(("in", "out"), exchange, strict=True)
        for name, each in named.items()
    }
    found = {"boxes": boxes.boxes.numpy(), "scores": boxes.scores.numpy(), "labels": boxes.labels.numpy()}
    np.savez_compressed(path, **scan_to_arrays(scan), **found, **arrays)


def check_export(folder: Path, scan: Scan, exchanges: list[Exchange], boxes: Detections) -> Parity:
    """Run an exported folder on its golden scan through the runtime, and write parity.json.

    Raises:
        ValueError: if its results differ from PyTorch's.
    """
    runtime = Runtime(folder)
    specs, meaning = runtime.manifest.graphs, runtime.outputs
    tolerance = TOLERANCES[runtime.manifest.precision]
    inner: dict[str, float] = {}
    for spec, graph, (inputs, expected) in zip(specs, runtime.graphs, exchanges, strict=True):
        found = graph(inputs)
        if spec is not specs[-1]:
            inner.update(compare_outputs(expected, found, f"{spec.stem}/"))
    expected, found = meaning.align(expected, found, tolerance.output)
    parity = Parity(
        inner,
        compare_outputs(expected, found),
        compare_boxes(meaning.decode(expected, runtime.grid), meaning.decode(found, runtime.grid), tolerance),
        compare_boxes(boxes, runtime(scan), tolerance),
        tolerance,
    )
    (folder / PARITY).write_text(json.dumps(parity.to_json(), indent=1) + "\n", encoding="utf-8")
    if parity.failures:
        raise ValueError(
            f"ONNX Runtime differs from PyTorch; the graph is left in {folder} for inspection:\n  "
            + "\n  ".join(parity.failures)
        )
    return parity


# -- manifest ---------------------------------------------------------------------------------------------------------


def _manifest(
    exported: Plan, class_names: list[str], options: ExportOptions, exchanges: list[Exchange], head: str
) -> Manifest:
    prepare, grid = exported.prepare, exported.prepare.grid
    shapes, limits = [prepare.shapes(number) for number in range(prepare.num_graphs)], prepare.limits()
    results = [prepare.output_shapes(number) for number in range(prepare.num_graphs)]
    typical = {
        extent: inputs[name].shape[axis]
        for own, (inputs, _) in zip(shapes, exchanges, strict=True)
        for name, shape in own.items()
        for axis, extent in enumerate(shape)
        if isinstance(extent, str)
    }
    graphs = [
        GraphSpec(
            file,
            [_spec(name, inputs[name], own[name]) for name in inputs],
            [_spec(name, each, made.get(name, tuple(each.shape))) for name, each in outputs.items()],
        )
        for file, own, made, (inputs, outputs) in zip(graph_files(len(shapes)), shapes, results, exchanges, strict=True)
    ]
    return Manifest(
        model=options.name,
        precision=options.precision,
        dialect=exported.dialect,
        class_names=list(class_names),
        grid=dict(point_range=grid.point_range, voxel_size=grid.voxel_size, stride=grid.stride),
        preparation=prepare.to_json(),
        head=head,
        decoding=exported.outputs.to_json(),
        graphs=graphs,
        dimensions={name: Dimension(low=0, typical=typical[name], high=limits[name]) for name in limits},
        opset=OPSET,
        versions={"python": platform.python_version(), "sparse3d": version("sparse3d"), **_versions()},
        checksums={},
    )


def _spec(name: str, tensor: Tensor, shape: Shape) -> TensorSpec:
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)


def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in PACKAGES}


def _seal(manifest: Manifest, folder: Path) -> None:
    """Write the manifest with the checksums of the other files."""
    written = [GOLDEN, PARITY, *(spec.file for spec in manifest.graphs)]
    files = {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.name in written}
    Manifest(**{**vars(manifest), "checksums": files}).write(folder)
