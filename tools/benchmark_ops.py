"""Time the kernels of sparse3d_ops and the nuScenes metric against their references and against installed peers.

    python tools/benchmark_ops.py --suite voxelize segment --json results.json
    python tools/benchmark_ops.py --suite sparse_conv --voxels scan.npz --threads 2 --json results.json

Inputs are of realistic size and shape, and the same in every run. A time is the median of repeated calls after a first
one that compiles; what takes more than two seconds is called once. The last column says how many times as fast as the
peer a line is: spconv or nuScenes' development kit where they are installed and do the same, plain torch else.
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

import sparse3d  # noqa: F401  # before torch: it says how threads wait

# isort: split
import numpy as np
import torch
from ops_suites.images import images_suite
from ops_suites.kernels import boxes_suite, segment_suite, voxelize_suite, windows_suite
from ops_suites.metric import FULL_SAMPLES, metric_suite
from ops_suites.sampling import sampling_suite
from ops_suites.sparse_conv import sparse_conv_suite
from ops_suites.timing import Case, Row, all_rows
from rich.console import Console
from rich.table import Table

SUITES: dict[str, Callable[[argparse.Namespace], Iterator[Case]]] = {
    "voxelize": voxelize_suite,
    "segment": segment_suite,
    "boxes": boxes_suite,
    "windows": windows_suite,
    "sampling": sampling_suite,
    "images": images_suite,
    "sparse_conv": sparse_conv_suite,
    "metric": metric_suite,
}


def main() -> None:
    """Run the suites that the command line names and print one table."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    console = Console()
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), highlight=False)
    rows: list[Row] = []
    for suite in arguments.suite:
        for row in all_rows(suite, SUITES[suite](arguments)):
            console.print(f"{suite}: {title(row.case)}: {row.backend} {figure(row)}", highlight=False)
            rows.append(row)
    console.print(as_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES), help="what to time")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the rows to this file")
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


def as_table(rows: list[Row]) -> Table:
    """Return the figures as a table, one line a function."""
    table = Table("suite", "operation", "by", "figure", "times as good as the peer")
    for row in rows:
        ours = row.backend == row.case.backend
        ratio = "peer" if row.backend == row.case.peer else "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.suite if ours else "", title(row.case) if ours else "", row.backend, figure(row), ratio)
    return table


def title(case: Case) -> str:
    """Return what a case does, in words."""
    width = "" if case.channels is None else f"{case.channels} channels"
    return ", ".join(part for part in (case.name, case.step, width) if part)


def figure(row: Row) -> str:
    """Return a row's figure with its unit."""
    return f"{row.value:.2f} {row.case.unit}"


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
