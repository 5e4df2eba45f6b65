"""Compare an exported detector with PyTorch, end to end: points or images in, boxes out, every stage listed.

    python tools/benchmark_deploy.py CONFIG exported/NAME
    python tools/benchmark_deploy.py CONFIG exported/NAME --providers CUDAExecutionProvider CPUExecutionProvider

Both sides run on the golden scan of the export, in turns, with the threads that torch has. Weights do not change the
time, so PyTorch's are random. Voxelization and decoding are part of the whole.
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

from sparse3d.deploy import Runtime
from sparse3d.deploy.manifest import GOLDEN
from sparse3d.deploy.scans import as_sample
from sparse3d.deploy.sensor_scan import Scan, scan_from_arrays
from sparse3d.models import Detector3D
from sparse3d.progress import track
from sparse3d.registry import MODELS


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
        scan = scan_from_arrays(golden)
    size = {name: len(each) for name, each in as_sample(scan).items() if name in ("points", "images")}
    detector = MODELS.build(config.model).eval()
    names = ("PyTorch", f"runtime ({arguments.providers[0]})")
    timings = dict(zip(names, time_both(detector, runtime, scan, arguments.runs), strict=True))
    Console().print(as_table(timings, size))
    if arguments.json:
        content: dict[str, Any] = {
            "machine": machine(),
            **size,
            "timings": {who: [vars(timing) for timing in each] for who, each in timings.items()},
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def time_both(detector: Detector3D, runtime: Runtime, scan: Scan, runs: int) -> tuple[list[Timing], list[Timing]]:
    """Return the times of PyTorch's and of the runtime's stages.

    The two alternate, so that whatever else the machine does hits both alike.
    """
    sample = as_sample(scan)
    ours, theirs = (Stopwatch(torch.device("cpu")) for _ in range(2))
    predict(detector, sample, ours)
    detect(runtime, scan, theirs)
    ours.seconds.clear()
    theirs.seconds.clear()
    ours.watch(detector, "extract_features", "features")
    ours.watch(detector.head, "forward", "head")
    for _ in track(range(runs), "timing"):
        predict(detector, sample, ours)
        detect(runtime, scan, theirs)
    return ours.timings(), theirs.timings()


def detect(runtime: Runtime, scan: Scan, watch: Stopwatch) -> None:
    """Run an exported model on a scan."""
    with watch.stage(WHOLE):
        with watch.stage("prepare"):
            feed = runtime.prepare(scan)
        for number, (spec, graph) in enumerate(zip(runtime.manifest.graphs, runtime.graphs, strict=True)):
            with watch.stage(spec.stem):
                outputs = graph(feed.named)
            if number + 1 < len(runtime.graphs):
                with watch.stage(f"between graphs ({number + 1})"):
                    feed = runtime.preparation.go_on(number, feed, outputs)
        with watch.stage("decode"):
            runtime.decode(outputs)


def as_table(timings: dict[str, list[Timing]], size: dict[str, int]) -> Table:
    """Return the times as a table."""
    sizes = " and ".join(f"{count} {what}" for what, count in size.items())
    table = Table("by", "stage", "median ms", "90 % ms", title=f"golden scan, {sizes}")
    for who, each in timings.items():
        for number, timing in enumerate(sorted(each, key=lambda timing: timing.stage == WHOLE)):
            table.add_row("" if number else who, timing.stage, f"{timing.median:.2f}", f"{timing.p90:.2f}")
    return table


if __name__ == "__main__":
    main()
