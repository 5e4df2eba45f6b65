"""What the forms of Waymo's points cost: size of a frame, time to read one in any order, time and memory of indexing.

python tools/create_data.py synthetic-waymo --root data/waymo_full --scenes 1 --val-scenes 0 --frames 20
python tools/benchmark_waymo_data.py --root data/waymo_full

The index of the training split is written anew in each form, the one of the original files last.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np

from sparse3d.datasets import FrameIndex
from sparse3d.datasets.create_waymo import POINT_FORMS, create_waymo_index
from sparse3d.datasets.sensor_files import read_scan


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Size and speed of Waymo's points in each form.")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds training/")
    parser.add_argument("--frames", type=int, default=10, help="frames to read in random order (default: %(default)s)")
    return parser.parse_args()


def index(root: Path, form: str) -> tuple[float, float]:
    """Index the training split with one worker; returns seconds and the process's peak memory in GB."""
    start = time.perf_counter()
    create_waymo_index(root, splits=["train"], points=form, workers=1)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def read(root: Path, frames: int) -> tuple[float, float]:
    """Return the mean seconds to read a frame, and the mean number of its points."""
    rows = FrameIndex(root / "sparse3d_train.arrow", root)
    chosen = np.random.default_rng(0).permutation(len(rows))[:frames]
    scans = [rows[int(row)].lidar for row in chosen]
    read_scan(scans[0])
    start = time.perf_counter()
    points = [len(read_scan(scan)) for scan in scans]
    return (time.perf_counter() - start) / len(scans), float(np.mean(points))


def stored(root: Path, form: str, frames: int) -> float:
    """Return megabytes a frame on disk."""
    tags = (root / "training").glob("lidar*") if form == "original" else (root / "sparse3d_points" / "train",)
    suffix = POINT_FORMS[form] or ".parquet"
    files = (file for tag in tags for file in tag.glob(f"*{suffix}"))
    return sum(file.stat().st_size for file in files) / frames / 1e6


def main() -> None:
    """Measure each form in a process of its own."""
    arguments = parse_arguments()
    print(f"{'points':<10}{'MB a frame':>12}{'read, ms':>12}{'points a frame':>16}{'indexing, s':>13}{'peak, GB':>10}")
    for form in reversed(POINT_FORMS):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # one task, one process: its memory is its own
            seconds, peak = pool.apply(index, (arguments.root, form))
        frames = len(FrameIndex(arguments.root / "sparse3d_train.arrow", arguments.root))
        reading, points = read(arguments.root, arguments.frames)
        size = stored(arguments.root, form, frames)
        print(f"{form:<10}{size:>12.2f}{reading * 1e3:>12.1f}{points:>16.0f}{seconds:>13.1f}{peak:>10.2f}")


if __name__ == "__main__":
    main()
