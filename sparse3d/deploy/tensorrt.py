"""TensorRT: engines from an exported directory, one a graph, or the commands that build them on another machine.

An engine has one optimisation profile: the ranges of deploy.json, and the golden scan for its typical shapes. Engines
cannot take an empty dimension, so the least extent is 1; an empty scan needs no engine, it has no boxes.
Half-precision and int8 graphs carry their types, and the engine keeps them. Graphs in Autoware's dialect need the
library of its plugins, whose path the environment variable AUTOWARE_TENSORRT_PLUGINS tells.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

from .manifest import AUTOWARE, GraphSpec, Manifest, TensorSpec

ENDING, SCRIPT = ".plan", "build_engine.sh"
PLUGINS = "AUTOWARE_TENSORRT_PLUGINS"


def installed() -> bool:
    """Whether TensorRT's Python package is there."""
    return importlib.util.find_spec("tensorrt") is not None


def profile_shapes(manifest: Manifest, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the least, typical and largest shape of an input."""
    ranges = [
        (extent, extent, extent) if isinstance(extent, int) else _range(manifest, extent) for extent in spec.shape
    ]
    low, typical, high = zip(*ranges, strict=True)
    return low, typical, high


def _range(manifest: Manifest, name: str) -> tuple[int, int, int]:
    each = manifest.dimensions[name]
    return max(each.low, 1), max(each.typical, 1), each.high


def trtexec_command(manifest: Manifest, graph: GraphSpec) -> str:
    """Return the command that builds a graph's engine where ``trtexec`` is, run inside the exported directory."""
    options = [f"--onnx={graph.file}", f"--saveEngine={graph.stem}{ENDING}"]
    shapes = [profile_shapes(manifest, spec) for spec in graph.inputs]
    for position, option in enumerate(("minShapes", "optShapes", "maxShapes")):
        parts = [
            f"{spec.name}:{'x'.join(map(str, each[position]))}" for spec, each in zip(graph.inputs, shapes, strict=True)
        ]
        options.append(f"--{option}={','.join(parts)}")
    if manifest.precision != "fp32":
        options.append("--stronglyTyped")
    if manifest.dialect == AUTOWARE:
        options.append(f'--staticPlugins="${{{PLUGINS}:?path of libautoware_tensorrt_plugins.so}}"')
    return " \\\n    ".join(["trtexec", *options])


def write_script(directory: str | Path) -> Path:
    """Write the ``trtexec`` commands into an exported directory and return the script's path."""
    path = Path(directory) / SCRIPT
    manifest = Manifest.read(directory)
    commands = "\n".join(trtexec_command(manifest, graph) for graph in manifest.graphs)
    path.write_text(f'#!/bin/sh\nset -e\ncd "$(dirname "$0")"\n{commands}\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def build_engines(directory: str | Path) -> list[Path]:
    """Build the engines of an exported directory with TensorRT's Python package, and return their paths.

    Raises:
        RuntimeError: if TensorRT cannot parse a graph or build its engine; its own messages are in the error.
        FileNotFoundError: if a graph needs Autoware's plugins and the environment does not say where they are.
    """
    directory = Path(directory)
    manifest = Manifest.read(directory)
    if manifest.dialect == AUTOWARE:
        _load_plugins()
    return [_build_engine(directory, manifest, graph) for graph in manifest.graphs]


def _load_plugins() -> None:
    path = os.environ.get(PLUGINS)
    if not path or not Path(path).is_file():
        raise FileNotFoundError(f"set {PLUGINS} to the path of libautoware_tensorrt_plugins.so, got {path!r}")
    ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # its creators register themselves


def _build_engine(directory: Path, manifest: Manifest, graph: GraphSpec) -> Path:
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    typed = manifest.precision != "fp32"
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if typed else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(directory / graph.file)):
        errors = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise RuntimeError(f"TensorRT cannot parse {graph.file}:\n  " + "\n  ".join(errors))
    profile = builder.create_optimization_profile()
    for spec in graph.inputs:
        profile.set_shape(spec.name, *profile_shapes(manifest, spec))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"TensorRT could not build an engine of {graph.file}; its log says why")
    path = directory / f"{graph.stem}{ENDING}"
    partial = path.with_suffix(".partial")
    partial.write_bytes(bytes(engine))
    partial.rename(path)
    return path
