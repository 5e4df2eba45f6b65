"""Time the kernels of sparse3d_ops and the nuScenes metric against their references and against installed peers.

    python tools/benchmark_ops.py --suite voxelize segment --json results.json
    python tools/benchmark_ops.py --suite sparse_conv --voxels scan.npz --threads 2 --json results.json

Inputs are of realistic size and shape, and the same in every run. A time is the median of repeated calls after a first
one that compiles; what takes more than two seconds is called once. The last column is a time divided by ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ops_suites.kernels import boxes_suite, segment_suite, voxelize_suite, windows_suite
from ops_suites.metric import FULL_SAMPLES, metric_suite
from ops_suites.sampling import sampling_suite
from ops_suites.sparse_conv import sparse_conv_suite
from ops_suites.timing import Case, Timing, run_case
from rich.console import Console
from rich.table import Table

SUITES: dict[str, Callable[[argparse.Namespace], Iterator[Case]]] = {
    "voxelize": voxelize_suite,
    "segment": segment_suite,
    "boxes": boxes_suite,
    "windows": windows_suite,
    "sampling": sampling_suite,
    "sparse_conv": sparse_conv_suite,
    "metric": metric_suite,
}


def main() -> None:
    """Run the suites that the command line names and print one table."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    console = Console()
    timings: list[Timing] = []
    for suite in arguments.suite:
        for case in SUITES[suite](arguments):
            for timing in run_case(suite, case):
                console.print(f"{suite}: {case.name}: {timing.function} {timing.milliseconds:.2f} ms", highlight=False)
                timings.append(timing)
    console.print(as_table(timings))
    if arguments.json:
        content = {"machine": machine(), "timings": [vars(timing) for timing in timings]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES), help="what to time")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the times to this file")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch and the kernels")
    parser.add_argument(
        "--samples",
        type=int,
        default=FULL_SAMPLES,
        help="samples of the metric suite (default: nuScenes val, %(default)s)",
    )
    parser.add_argument(
        "--voxels",
        type=Path,
        metavar="FILE.npz",
        help="voxels of the sparse_conv suite: indices [N, 3] (z, y, x) and spatial_shape; default: made-up sweeps",
    )
    return parser.parse_args()


def as_table(timings: list[Timing]) -> Table:
    """Return the times as a table, one line a function."""
    table = Table("suite", "operation", "by", "ms", "times ours")
    for timing in timings:
        ours = timing.ratio is None
        table.add_row(
            timing.suite if ours else "",
            timing.case if ours else "",
            timing.function,
            f"{timing.milliseconds:.2f}",
            "" if timing.ratio is None else f"{timing.ratio:.2f}",
        )
    return table


def machine() -> dict[str, Any]:
    """Return what the times depend on."""
    import numba

    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "spconv": installed("spconv"),
    }


def installed(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
