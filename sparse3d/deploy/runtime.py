"""Runtime: an exported detector, points in, boxes out, without mmengine.

What is no graph (voxelization, set partition, neighbour tables, growth, decoding) is the code that training uses;
graphs run in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparse3d.results import NamedDetections
from sparse3d.structures import Grid

from . import autoware
from .camera_inputs import CameraInputs
from .frame_inputs import FrameInputs
from .fusion_inputs import FusionInputs
from .inputs import PointInputs
from .look_inputs import LookInputs
from .manifest import AUTOWARE, Manifest
from .named import Feed, Graph, Named, run_graphs
from .outputs import OUTPUTS, Outputs
from .region_inputs import RegionInputs
from .sensor_scan import CameraScan, Scan

PREPARATIONS = {
    each.__name__: each for each in (PointInputs, CameraInputs, FrameInputs, FusionInputs, RegionInputs, LookInputs)
}
CPU = ("CPUExecutionProvider",)
ERRORS_ONLY = 3  # its warnings are about nodes that it cannot optimise, dozens of them in half precision


class Runtime:
    """A detector that was written by ``tools/export.py``.

    Args:
        directory: the exported directory.
        providers: ONNX Runtime's execution providers, best first.
        threads: threads of a graph's operators; None leaves the choice to ONNX Runtime.

    Raises:
        FileNotFoundError: if the directory or one of its files is missing.
        ValueError: if a file is damaged or of another version, or a provider is not available.

    Example:
        >>> detections = Runtime("exported/dsvt")(points)  # [P, F] float32
        >>> detections = Runtime("exported/matrixvt")(CameraScan(images, cameras))
        >>> detections = Runtime("exported/sparsefusion")(FusionScan(images, cameras, points))
    """

    def __init__(self, directory: str | Path, providers: Sequence[str] = CPU, threads: int | None = None) -> None:
        self.manifest = Manifest.read(directory)
        self.class_names = self.manifest.class_names
        self.grid = Grid(**self.manifest.grid)
        preparation = self.manifest.preparation
        self.preparation = PREPARATIONS[preparation["type"]].from_json(preparation, self.grid)
        self.outputs: Outputs = OUTPUTS[self.manifest.head].from_json(self.manifest.decoding)
        self.graphs = [
            open_graph(
                Path(directory) / spec.file,
                [each.name for each in spec.outputs],
                self.manifest.dialect,
                providers,
                threads,
            )
            for spec in self.manifest.graphs
        ]

    def __call__(self, scan: Scan | np.ndarray) -> NamedDetections:
        """Detect in one scan.

        Args:
            scan: points ``[P, F]`` float32 with the columns of training (``x, y, z`` first, metres); sweeps are already
                in the frame of the scan. It may be empty. Or images with their calibration, or all of it, by what the
                detector looks at.

        Raises:
            ValueError: if points or images have another shape or dtype, or points are not finite or more than the
                exported ranges allow.
        """
        return self.decode(self.run(self.prepare(scan)))

    def prepare(self, scan: Scan | np.ndarray) -> Feed:
        """Return the first graph's inputs for one scan."""
        return self.preparation(scan if isinstance(scan, CameraScan) else torch.as_tensor(scan))

    def run(self, feed: Feed) -> Named:
        """Return the last graph's outputs."""
        *_, (_, outputs) = run_graphs(self.preparation, self.graphs, feed)
        return outputs

    def decode(self, outputs: Named) -> NamedDetections:
        """Return the boxes that the last graph's outputs stand for."""
        return NamedDetections.of(self.outputs.decode(outputs, self.grid), self.class_names)


def open_graph(
    path: Path, outputs: Sequence[str], dialect: str, providers: Sequence[str] = CPU, threads: int | None = None
) -> Graph:
    """Open a graph; errors as ``open_session``.

    Nodes of Autoware's plugins are computed by our kernels and standard operators, so that any machine can check such a
    graph; that takes the package ``onnx``.
    """
    if dialect == AUTOWARE:
        return autoware.open_graph(path, outputs, partial(open_session, providers=providers, threads=threads))
    session = open_session(path, providers, threads)

    def run(inputs: Named) -> Named:
        results = session.run(list(outputs), {name: each.numpy() for name, each in inputs.items()})
        return {name: torch.from_numpy(each) for name, each in zip(outputs, results, strict=True)}

    return run


def open_session(model: Path | bytes, providers: Sequence[str] = CPU, threads: int | None = None) -> Any:
    """Open a graph, a file or its content, in ONNX Runtime.

    Raises:
        ModuleNotFoundError: if ONNX Runtime is not installed.
        ValueError: if it lacks one of the providers.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "running exported models needs onnxruntime: pip install 'sparse3d[deploy]'"
        ) from error
    lacking = sorted(set(providers) - set(onnxruntime.get_available_providers()))
    if lacking:
        available = ", ".join(onnxruntime.get_available_providers())
        raise ValueError(f"onnxruntime has no {', '.join(lacking)}; it has {available}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )
