"""Export a detector to ONNX, and check that it does in ONNX Runtime what it does in PyTorch.

    python tools/export.py CONFIG CHECKPOINT --out exported/NAME
    python tools/export.py CONFIG CHECKPOINT --out exported/NAME --precision fp16 --max-voxels 30000 --tensorrt

The directory holds the graphs, a manifest, golden data and a parity report; see docs/deployment.md. What TensorRT would
not take is listed. Exit status 1: the export failed, and why is said.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import add_config, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope

from sparse3d.checkpoints import load_converted
from sparse3d.deploy import autoware, tensorrt
from sparse3d.deploy.graph import PRECISIONS
from sparse3d.deploy.manifest import AUTOWARE, DIALECTS, Manifest
from sparse3d.deploy.onnx import ExportOptions, export_detector
from sparse3d.deploy.operators import SOURCE, check_operators
from sparse3d.deploy.parity import BoxParity
from sparse3d.deploy.scans import as_sample, calibration_scans, config_scan
from sparse3d.deploy.sensor_scan import Scan
from sparse3d.engine import CheckpointError, newest_checkpoint, read_checkpoint
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint, or a work directory for its newest one")
    weights.add_argument("--random-weights", action="store_true", help="export an untrained model, to measure it")
    parser.add_argument("--out", type=Path, required=True, help="directory to write; it must not exist yet")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="(default: %(default)s)")
    parser.add_argument(
        "--calibration", type=int, default=8, help="scans of --data that int8's scales are measured on (default: 8)"
    )
    parser.add_argument(
        "--dialect",
        choices=DIALECTS,
        default="plain",
        help="sparse convolutions as standard operators, or as nodes of Autoware's TensorRT plugins (default: plain)",
    )
    parser.add_argument("--max-voxels", type=int, help="voxels of a scan at most (default: by the grid)")
    parser.add_argument("--max-points", type=int, help="points of a scan inside of the grid at most (default: 500000)")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with an index (sparse3d_*.arrow) or an info file (*.pkl), whose first frame becomes the golden "
        "scan, and others calibrate; without it made-up scans of the size of real ones",
    )
    parser.add_argument(
        "--tensorrt", action="store_true", help="also build an engine, or write the command where TensorRT is missing"
    )
    return parser.parse_args()


def main() -> None:
    """Export, and say how it went."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    try:
        export(arguments, config)
    except (CheckpointError, FileExistsError, FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        sys.exit(f"export: {error}")


def export(arguments: argparse.Namespace, config: Config) -> None:
    """Do what the command line asks for."""
    options = ExportOptions(
        arguments.precision, arguments.max_voxels, arguments.max_points, arguments.dialect, arguments.config.stem
    )
    scan = config_scan(config, arguments.data)
    detector = build_detector(arguments, config, scan)
    counted = arguments.calibration if arguments.precision == "int8" else 0
    calibration = calibration_scans(config, arguments.data, counted) if counted else []
    parity = export_detector(detector, config.class_names, scan, arguments.out, options, calibration)
    outputs = {**parity.inner, **parity.outputs}
    worst = max(outputs, key=outputs.__getitem__)
    print(f"{arguments.out}: {arguments.config.stem}, {arguments.precision}")
    print(f"ONNX Runtime and PyTorch differ by at most {outputs[worst]:.1e} (output {worst})")
    print(f"boxes of the same inputs: {report(parity.boxes)}")
    print(f"points in, boxes out: {report(parity.whole)}")
    report_operators(arguments.out)
    if arguments.tensorrt:
        build_engines(arguments.out)


def report(boxes: BoxParity) -> str:
    """Return how boxes compare, in words."""
    return f"{boxes}, centres within {boxes.center * 1e3:.4f} mm, scores within {boxes.score:.1e}"


def build_detector(arguments: argparse.Namespace, config: Config, scan: Scan) -> Detector3D:
    """Return the config's detector with the weights that the command line names."""
    torch.manual_seed(0)
    detector = MODELS.build(config.model).eval()
    if arguments.random_weights:
        return measure_norms(detector, scan)
    path = newest_checkpoint(arguments.checkpoint) if arguments.checkpoint.is_dir() else arguments.checkpoint
    if path is None:
        raise FileNotFoundError(f"{arguments.checkpoint} holds no checkpoint")
    checkpoint = read_checkpoint(path)
    load_converted(detector, checkpoint.get("state_dict", checkpoint))
    return detector


@torch.no_grad()
def measure_norms(detector: Detector3D, scan: Scan) -> Detector3D:
    """Give the norms of an untrained detector the statistics of a scan.

    Without them its heat is nearly the same everywhere, and which cells are hottest is decided by rounding.
    """
    norms = [each for each in detector.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    detector.train()(**detector.data_preprocessor([as_sample(scan)]), mode="tensor")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return detector.eval()


def report_operators(folder: Path) -> None:
    """Print what TensorRT does not take by itself."""
    manifest = Manifest.read(folder)
    offences = [each for graph in manifest.graphs for each in check_operators(folder / graph.file)]
    if manifest.dialect == AUTOWARE:
        count = sum(autoware.count_nodes(folder / graph.file) for graph in manifest.graphs)
        print(f"{count} nodes of Autoware's plugins, with the attributes that the plugins list")
        offences = [each for each in offences if not each.operator.startswith(autoware.DOMAIN)]
    if not offences:
        print(f"TensorRT takes every {'other ' * (manifest.dialect == AUTOWARE)}operator ({SOURCE})")
    for each in offences:
        print(f"TensorRT does not take {each.operator} (node {each.node}): {each.reason}")


def build_engines(folder: Path) -> None:
    """Build engines, or write the commands that do."""
    if tensorrt.installed():
        print(f"engines: {', '.join(map(str, tensorrt.build_engines(folder)))}")
        return
    script = tensorrt.write_script(folder)
    print(f"TensorRT is not installed here; {script} builds the engine where trtexec is")


if __name__ == "__main__":
    main()
