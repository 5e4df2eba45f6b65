"""Compare an exported detector with PyTorch, end to end: points in, boxes out, every stage listed.

    python tools/benchmark_deploy.py CONFIG exported/NAME
    python tools/benchmark_deploy.py CONFIG exported/NAME --providers CUDAExecutionProvider CPUExecutionProvider

Both sides run on the golden scan of the export, with the threads that torch has. Weights do not change the time, so
PyTorch's are random. Voxelization and decoding are part of the whole.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_model import WHOLE, Stopwatch, Timing, predict
from benchmark_ops import machine
from common import add_config, read_config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sparse3d.deploy import Runtime
from sparse3d.deploy.manifest import GOLDEN
from sparse3d.models import Detector3D
from sparse3d.progress import track
from sparse3d.registry import MODELS
from sparse3d.structures import Sample


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("directory", type=Path, help="what tools/export.py wrote")
    parser.add_argument("--runs", type=int, default=10, help="how often (default: %(default)s)")
    parser.add_argument(
        "--providers",
        nargs="+",
        default=["CPUExecutionProvider"],
        help="ONNX Runtime's execution providers, best first",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the times to this file")
    return parser.parse_args()


def main() -> None:
    """Time both and print a table."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    runtime = Runtime(arguments.directory, arguments.providers, threads=torch.get_num_threads())
    with np.load(arguments.directory / GOLDEN) as golden:
        points = torch.from_numpy(golden["points"])
    timings = {
        "PyTorch": time_pytorch(MODELS.build(config.model).eval(), points, arguments.runs),
        f"runtime ({arguments.providers[0]})": time_runtime(runtime, points, arguments.runs),
    }
    Console().print(as_table(timings, len(points)))
    if arguments.json:
        content: dict[str, Any] = {
            "machine": machine(),
            "points": len(points),
            "timings": {who: [vars(timing) for timing in each] for who, each in timings.items()},
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def time_pytorch(detector: Detector3D, points: Tensor, runs: int) -> list[Timing]:
    """Return the times of the training framework's stages."""
    sample = Sample()
    sample.points = points
    predict(detector, sample, Stopwatch(points.device))
    watch = Stopwatch(points.device)
    watch.watch(detector, "extract_features", "features")
    watch.watch(detector.head, "forward", "head")
    for _ in track(range(runs), "PyTorch"):
        predict(detector, sample, watch)
    return watch.timings()


def time_runtime(runtime: Runtime, points: Tensor, runs: int) -> list[Timing]:
    """Return the times of the runtime's stages."""
    runtime(points)
    watch = Stopwatch(points.device)
    for _ in track(range(runs), "runtime"):
        with watch.stage(WHOLE):
            with watch.stage("prepare (voxelize, describe, partition)"):
                inputs = runtime.prepare(points)
            with watch.stage("graph"):
                outputs = runtime.run(inputs)
            with watch.stage("decode"):
                runtime.decode(outputs)
    return watch.timings()


def as_table(timings: dict[str, list[Timing]], num_points: int) -> Table:
    """Return the times as a table."""
    table = Table("by", "stage", "median ms", "90 % ms", title=f"golden scan, {num_points} points")
    for who, each in timings.items():
        for number, timing in enumerate(sorted(each, key=lambda timing: timing.stage == WHOLE)):
            table.add_row("" if number else who, timing.stage, f"{timing.median:.2f}", f"{timing.p90:.2f}")
    return table


if __name__ == "__main__":
    main()
