"""Time the kernels of sparse3d_ops and the nuScenes metric against their references and against installed peers.

    python tools/benchmark_ops.py --suite voxelize segment --json results.json

Inputs are random, of realistic size and shape, and the same in every run. A time is the median of repeated calls after
a first one that compiles; what takes more than two seconds is called once. The last column is a time divided by ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import sparse3d_ops as ops
from sparse3d_ops import boxes as box_ops
from sparse3d_ops import windows as window_ops
from sparse3d_ops.segment import (
    segment_gather_reference,
    segment_max_reference,
    segment_mean_reference,
    segment_sum_reference,
)
from sparse3d_ops.voxelize import voxelize_hard_reference, voxelize_reference

POINT_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
VOXEL_SIZES = {"0.075 m voxels": (0.075, 0.075, 0.2), "0.3 m pillars": (0.3, 0.3, 8.0)}
MAX_POINTS, MAX_VOXELS = 10, 120_000
LONG = 2.0  # seconds; a call that takes longer is not repeated
BUDGET, MAX_CALLS = 1.0, 30  # seconds and calls spent on one median
FULL_SAMPLES, BOXES_PER_SAMPLE, OBJECTS_PER_SAMPLE = 6019, 200, 30

Function = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One operation at one size: our function, and others that do the same."""

    name: str
    ours: Function
    others: dict[str, Function] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function of a case; ``ratio`` is its time over ours, None for ours."""

    suite: str
    case: str
    function: str
    milliseconds: float
    ratio: float | None


def main() -> None:
    """Run the suites that the command line names and print one table."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    console = Console()
    timings: list[Timing] = []
    for suite in arguments.suite:
        for case in SUITES[suite](arguments.samples):
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
    return parser.parse_args()


def run_case(suite: str, case: Case) -> Iterator[Timing]:
    """Time the functions of a case, ours first."""
    case.ours()  # compiles
    ours = median_milliseconds(case.ours)
    yield Timing(suite, case.name, "sparse3d", ours, None)
    for name, function in case.others.items():
        other = median_milliseconds(function)
        yield Timing(suite, case.name, name, other, other / ours)


def median_milliseconds(function: Function) -> float:
    """Return the median time of a call; the first one counts only if it is long."""
    first = seconds(function)
    if first > LONG:
        return first * 1e3
    calls = max(3, min(MAX_CALLS, math.ceil(BUDGET / max(first, 1e-6))))
    return statistics.median(seconds(function) for _ in range(calls)) * 1e3


def seconds(function: Function) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# -- inputs ------------------------------------------------------------------------------------------------------------


def lidar_points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points ``[P, 5]`` in the order of ten revolutions of a LiDAR, and their batch index of zeros."""
    generator = torch.Generator().manual_seed(0)
    azimuth = torch.linspace(0, 20 * math.pi, count)
    distance = 2 + 50 * torch.rand(count, generator=generator) ** 2
    height = torch.randn(count, generator=generator) * 0.5 - 1
    columns = [distance * azimuth.cos(), distance * azimuth.sin(), height, distance / 60, azimuth / 100]
    return torch.stack(columns, dim=1), torch.zeros(count, dtype=torch.int64)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Return boxes ``[N, 7]`` of the sizes of road users in a square of 100 m."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([100, 100, 2, 4.5, 1.5, 1.5, 2 * math.pi])
    least = torch.tensor([-50, -50, -2, 0.5, 0.5, 1.0, -math.pi])
    return least + spread * torch.rand(count, 7, generator=generator)


# -- suites ------------------------------------------------------------------------------------------------------------


def voxelize_suite(_: int) -> Iterator[Case]:
    """Dynamic and hard voxelization of ten sweeps."""
    points, batch_index = lidar_points(300_000)
    for name, size in VOXEL_SIZES.items():
        dynamic = (points, batch_index, POINT_RANGE, size, 1)
        yield Case(
            f"dynamic, 300k points, {name}",
            lambda dynamic=dynamic: ops.voxelize(*dynamic),
            {"reference": lambda dynamic=dynamic: voxelize_reference(*dynamic)},
        )
        hard = (*dynamic, MAX_POINTS, MAX_VOXELS)
        yield Case(
            f"hard, 300k points, {name}",
            lambda hard=hard: ops.voxelize_hard(*hard),
            {
                "reference": lambda hard=hard: voxelize_hard_reference(*hard),
                **spconv_voxelizer(points, size),
            },
        )


def spconv_voxelizer(points: torch.Tensor, size: tuple[float, ...]) -> dict[str, Function]:
    """Return spconv's hard voxelization where spconv is installed."""
    if importlib.util.find_spec("spconv") is None:
        return {}
    from spconv.pytorch.utils import PointToVoxel

    voxelizer = PointToVoxel(list(size), list(POINT_RANGE), points.shape[1], MAX_VOXELS, MAX_POINTS)
    return {"spconv": lambda: voxelizer(points)}


def segment_suite(_: int) -> Iterator[Case]:
    """Forward and backward of the segment operations of a dynamic voxel encoder."""
    points, batch_index = lidar_points(200_000)
    voxels = ops.voxelize(points, batch_index, POINT_RANGE, (0.6, 0.6, 8.0), 1)
    index, num_voxels = voxels.point_to_voxel, len(voxels.coords)
    size = f"{len(index) // 1000}k points, {num_voxels / 1000:.1f}k voxels"
    yield Case(
        f"grouping, {size}",
        lambda: ops.Segments.from_index(index, num_voxels),
        {"reference": lambda: ops.Segments.from_index_reference(index, num_voxels)},
    )
    segments = ops.Segments.from_index(index, num_voxels)
    pairs = {
        "sum": (ops.segment_sum, segment_sum_reference, len(index)),
        "mean": (ops.segment_mean, segment_mean_reference, len(index)),
        "max": (ops.segment_max, segment_max_reference, len(index)),
        "gather": (ops.segment_gather, segment_gather_reference, num_voxels),
    }
    for channels in (16, 64, 128):
        for name, (fast, reference, rows) in pairs.items():
            values = torch.randn(rows, channels, generator=torch.Generator().manual_seed(0)).requires_grad_()
            yield Case(
                f"{name}, forward + backward, {size}, {channels} channels",
                forward_backward(fast, values, segments),
                {"reference": forward_backward(reference, values, segments)},
            )


def forward_backward(operation: Callable[..., torch.Tensor], values: torch.Tensor, segments: ops.Segments) -> Function:
    """Return a function that runs an operation and its gradient."""
    gradient = torch.randn_like(operation(values, segments))
    return lambda: torch.autograd.grad(operation(values, segments), values, gradient)


def boxes_suite(_: int) -> Iterator[Case]:
    """IoU, suppression, points in boxes."""
    a, b, many = random_boxes(500, 0), random_boxes(500, 1), random_boxes(4096, 2)
    scores = torch.rand(4096, generator=torch.Generator().manual_seed(3))
    points, objects = lidar_points(300_000)[0][:, :3].contiguous(), random_boxes(100, 4)
    yield Case("3D IoU, 500 x 500", lambda: ops.iou_3d(a, b), {"reference": lambda: box_ops.iou_3d_reference(a, b)})
    yield Case(
        "NMS from above, 4096 boxes",
        lambda: ops.nms_bev(many, scores, 0.2),
        {"reference": lambda: box_ops.nms_bev_reference(many, scores, 0.2)},
    )
    yield Case(
        "box of each point, 300k points, 100 boxes",
        lambda: ops.points_in_boxes(points, objects),
        {"reference": lambda: box_ops.points_in_boxes_reference(points, objects)},
    )
    yield Case(
        "points in each box, 300k points, 100 boxes",
        lambda: ops.count_points_in_boxes(points, objects),
        {
            "reference": lambda: box_ops.count_points_in_boxes_reference(points, objects),
            **devkit_counter(points, objects),
        },
    )


def devkit_counter(points: torch.Tensor, boxes: torch.Tensor) -> dict[str, Function]:
    """Return the development kit's count of points in boxes where it is installed."""
    if importlib.util.find_spec("nuscenes") is None:
        return {}
    from nuscenes.utils.data_classes import Box
    from nuscenes.utils.geometry_utils import points_in_box
    from pyquaternion import Quaternion

    turned = [
        Box(row[:3], [row[4], row[3], row[5]], Quaternion(axis=(0, 0, 1), radians=row[6])) for row in boxes.tolist()
    ]
    columns = points.double().T.numpy()
    return {"nuscenes-devkit": lambda: [points_in_box(box, columns).sum() for box in turned]}


def windows_suite(_: int) -> Iterator[Case]:
    """DSVT's partition of 20,000 voxels; plain torch throughout, so it has no reference to be compared with."""
    cells = torch.randperm(360 * 360, generator=torch.Generator().manual_seed(0))[:20_000]
    zeros = torch.zeros_like(cells)
    coords = torch.stack([zeros, zeros, cells // 360, cells % 360], dim=1)
    grid = (coords, (1, 360, 360), (1, 30, 30), (0, 15, 15), 1)
    windows = window_ops.partition_windows(*grid)
    yield Case("windows, 20k voxels", lambda: window_ops.partition_windows(*grid))
    yield Case("sets of 90, 20k voxels", lambda: window_ops.partition_sets(windows, 90))


def metric_suite(samples: int) -> Iterator[Case]:
    """Score a generated result set of nuScenes' size with our metric and with the development kit."""
    from sparse3d.evaluation import evaluate_detections

    ground_truth, detections, ego = detection_tables(samples)
    yield Case(
        f"nuScenes metric, {samples} samples x {BOXES_PER_SAMPLE} boxes",
        lambda: evaluate_detections(ground_truth, detections, ego),
        devkit_metric(ground_truth, detections, ego),
    )


def detection_tables(samples: int) -> tuple[Any, Any, np.ndarray]:
    """Return ground truth, detections (half of them near an object) and ego positions."""
    from sparse3d.evaluation import Detections, GroundTruth

    generator = np.random.default_rng(0)
    ego = generator.uniform(0, 1000, (samples, 3))
    truth = random_objects(np.repeat(np.arange(samples), OBJECTS_PER_SAMPLE), ego, generator)
    found = random_objects(np.repeat(np.arange(samples), BOXES_PER_SAMPLE), ego, generator)
    near = generator.permuted(
        np.tile(np.arange(BOXES_PER_SAMPLE) < BOXES_PER_SAMPLE // 2, (samples, 1)), axis=1
    ).ravel()
    source = found["sample"][near] * OBJECTS_PER_SAMPLE + generator.integers(0, OBJECTS_PER_SAMPLE, near.sum())
    for name in ("label", "size", "rotation", "velocity", "attribute"):
        found[name][near] = truth[name][source]
    found["translation"][near] = truth["translation"][source] + generator.normal(0, 1, (near.sum(), 3))
    score = generator.random(len(near)) * np.where(near, 1, 0.7)
    return GroundTruth(**truth, num_points=np.ones(len(truth["sample"]), int)), Detections(**found, score=score), ego


def random_objects(sample: np.ndarray, ego: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the columns of random objects around the ego positions of their samples."""
    count = len(sample)
    half = generator.uniform(-math.pi, math.pi, count) / 2
    zero = np.zeros(count)
    return {
        "sample": sample,
        "translation": ego[sample] + generator.uniform(-40, 40, (count, 3)) * [1, 1, 0.05],
        "size": generator.uniform(0.5, 5, (count, 3)),
        "rotation": np.stack([np.cos(half), zero, zero, np.sin(half)], axis=1),
        "velocity": generator.normal(0, 3, (count, 2)),
        "label": generator.integers(0, 10, count),
        "attribute": generator.integers(0, 8, count),
    }


def devkit_metric(ground_truth: Any, detections: Any, ego: np.ndarray) -> dict[str, Function]:
    """Return the development kit's evaluation where it is installed; building its boxes is not timed."""
    if importlib.util.find_spec("nuscenes") is None:
        return {}
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
    from nuscenes.eval.detection.evaluate import DetectionEval

    tables = EgoTables(ego)
    config = config_factory("detection_cvpr_2019")

    def evaluate() -> Any:
        sets = [add_center_dist(tables, boxes) for boxes in (truth, found)]
        kept = [filter_eval_boxes(tables, boxes, config.class_range) for boxes in sets]
        run = SimpleNamespace(cfg=config, gt_boxes=kept[0], pred_boxes=kept[1], verbose=False)
        return DetectionEval.evaluate(run)

    truth, found = devkit_boxes(ground_truth, len(ego)), devkit_boxes(detections, len(ego))
    return {"nuscenes-devkit": evaluate}


class EgoTables:
    """What the development kit asks its data set for: ego positions, and annotations (bicycle racks: none)."""

    def __init__(self, ego: np.ndarray) -> None:
        self.ego = ego

    def get(self, table: str, token: str) -> dict[str, Any]:
        """Return a record; a sample, its scan and its pose share a token."""
        if table == "sample":
            return {"data": {"LIDAR_TOP": token}, "anns": []}
        if table == "sample_data":
            return {"ego_pose_token": token}
        return {"translation": self.ego[int(token)].tolist()}


def devkit_boxes(table: Any, samples: int) -> Any:
    """Return a table as the development kit's ``EvalBoxes``."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    from sparse3d.datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES

    by_sample: list[list[Any]] = [[] for _ in range(samples)]
    names = ("sample", "translation", "size", "rotation", "velocity", "label", "attribute")
    own = "num_points" if hasattr(table, "num_points") else "score"
    key = {"num_points": "num_pts", "score": "detection_score"}[own]
    columns = (getattr(table, name).tolist() for name in (*names, own))
    for sample, translation, size, rotation, velocity, label, attribute, value in zip(*columns, strict=True):
        box = DetectionBox(
            sample_token=str(sample),
            translation=translation,
            size=size,
            rotation=rotation,
            velocity=velocity,
            detection_name=DETECTION_CLASSES[label],
            attribute_name=ATTRIBUTES[attribute],
            **{key: value},
        )
        by_sample[sample].append(box)
    boxes = EvalBoxes()
    for sample, own_boxes in enumerate(by_sample):
        boxes.add_boxes(str(sample), own_boxes)
    return boxes


SUITES: dict[str, Callable[[int], Iterator[Case]]] = {
    "voxelize": voxelize_suite,
    "segment": segment_suite,
    "boxes": boxes_suite,
    "windows": windows_suite,
    "metric": metric_suite,
}


# -- report ------------------------------------------------------------------------------------------------------------


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
            "" if timing.ratio is None else f"{timing.ratio:.1f}",
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
    }


if __name__ == "__main__":
    main()
