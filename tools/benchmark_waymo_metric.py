"""Compare the CPU time of our Waymo detection metric with that of the official operator.

    python tools/benchmark_waymo_metric.py CASE.npz

The case holds boxes as the official operator takes them (``pred_boxes``, ``gt_boxes``), and the ``.json`` beside it
the seconds that the operator took on the same boxes, in ``wall_seconds``; the shortest of its runs counts. Ours is the
CPU time of this process, all threads together, after a first call that compiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from sparse3d.evaluation import CAMERA_ONLY, DETECTION_3D, evaluate_waymo
from sparse3d.evaluation.waymo_boxes import tables_from_arrays

PROTOCOLS = {"det": DETECTION_3D, "let": CAMERA_ONLY}
CALLS = 5


def main() -> None:
    """Time both tasks of the benchmark on one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="file with the boxes; the .json of the same name lies beside it")
    path = parser.parse_args().case
    recorded = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["wall_seconds"]
    with np.load(path) as arrays:
        tables = tables_from_arrays(dict(arrays))
    print(f"{len(tables[0])} objects, {len(tables[1])} detections")
    print(f"{'task':<6}{'ours, CPU s':>14}{'official, s':>14}{'ratio':>8}")
    for task, protocol in PROTOCOLS.items():
        evaluate_waymo(*tables, protocol)
        ours = statistics.median(cpu_seconds(tables, protocol) for _ in range(CALLS))
        official = min(recorded[task])
        print(f"{task:<6}{ours:>14.3f}{official:>14.3f}{ours / official:>8.3f}")


def cpu_seconds(tables: tuple, protocol: object) -> float:
    """Return the CPU seconds that one evaluation takes."""
    start = time.process_time()
    evaluate_waymo(*tables, protocol)
    return time.process_time() - start


if __name__ == "__main__":
    main()
