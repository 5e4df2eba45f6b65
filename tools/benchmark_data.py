"""Time the way from disk to the network's input: frames a second by workers, where the time goes, and a comparison.

    python tools/benchmark_data.py configs/dsvt/dsvt_pillar_centerhead_nuscenes.py --workers 0 2 4 --json results.json

* loader:      frames a second of the config's training data loader, by number of worker processes;
* steps:       milliseconds of each step of its pipeline, in one process;
* comparison:  the same work (record, ten sweeps, augmentation, range filter, voxels) done by sparse3d and by a plain
               form of mmdetection3d's pipeline (tools/plain_pipeline.py), sample by sample in turn, in one process.

Files are read once before anything is timed, so the disk does not decide. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_ops import machine
from common import add_config, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from plain_pipeline import SCALE, SHIFT, TURN, PlainPipeline, PlainSample
from rich.console import Console
from rich.table import Table

from sparse3d.datasets import NuScenesDataset
from sparse3d.datasets.transforms import (
    Compose,
    LoadAnnotations,
    LoadPoints,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    RangeFilter,
)
from sparse3d.models.preprocessor import Preprocessor
from sparse3d.registry import DATASETS
from sparse3d.structures import Grid, Sample, Voxels

SWEEPS = 9  # before the key frame


def main() -> None:
    """Run all three parts, print them, and write them where the command line says."""
    arguments = parse_arguments()
    torch.set_num_threads(1)  # as in a worker
    config = read_config(arguments)
    init_default_scope(config.get("default_scope", "sparse3d"))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    items = evenly_spread(len(dataset), arguments.samples)
    for item in items:
        dataset[item]
    grid = Grid.build(config.grid)
    results = {
        "machine": machine(),
        "config": str(arguments.config),
        "frames": len(dataset.frames),
        "samples": len(items),
        "steps": time_steps(dataset, Preprocessor(grid, config.num_point_features), items),
        "comparison": compare(dataset, list(config.class_names), grid, items),
        "loader": [time_loader(config, workers, arguments.samples) for workers in arguments.workers],
    }
    report(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4], help="worker processes to try")
    parser.add_argument("--samples", type=int, default=64, help="samples to time (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results to this file")
    return parser.parse_args()


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Return positions in a data set of ``count`` samples."""
    if count == 0:
        raise SystemExit("benchmark_data: the training set is empty")
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


# -- the three parts ---------------------------------------------------------------------------------------------------


def time_steps(dataset: NuScenesDataset, preprocessor: Preprocessor, items: list[int]) -> list[dict[str, Any]]:
    """Return milliseconds and share of each step, the record of the index first, the voxels last."""
    names = ["index record", *(getattr(each, "__name__", type(each).__name__) for each in dataset.pipeline), "voxels"]
    steps: list[list[float]] = [[] for _ in names]
    for item in items:
        for step, spent in zip(steps, stopwatch(walk(dataset, preprocessor, item)), strict=True):
            step.append(spent)
    medians = [statistics.median(step) * 1e3 for step in steps]
    return [
        {"step": name, "milliseconds": median, "share": median / sum(medians)}
        for name, median in zip(names, medians, strict=True)
    ]


def walk(dataset: NuScenesDataset, preprocessor: Preprocessor, item: int) -> Iterator[None]:
    """Load a sample step by step."""
    rng = np.random.default_rng(item)
    sample = Sample.from_frame(dataset.frame(item))
    yield
    for transform in dataset.pipeline:
        sample = transform(sample, rng)
        yield
    preprocessor([sample])
    yield


def stopwatch(steps: Iterator[None]) -> list[float]:
    """Return the seconds of each step."""
    marks = [time.perf_counter()]
    for _ in steps:
        marks.append(time.perf_counter())
    return np.diff(marks).tolist()


def compare(dataset: NuScenesDataset, class_names: list[str], grid: Grid, items: list[int]) -> dict[str, Any]:
    """Time the same work in both forms, sample by sample in turn.

    Raises:
        SystemExit: if they do not give the same samples.
    """
    ours = Compose(
        [
            LoadPoints(sweeps=SWEEPS),
            LoadAnnotations(class_names, min_points=1),
            RandomFlip(),
            RandomRotate((-TURN, TURN)),
            RandomScale(SCALE),
            RandomTranslate(SHIFT),
            RangeFilter(grid),
        ]
    )
    preprocessor = Preprocessor(grid, num_features=5)
    plain = PlainPipeline([dataset.frame(item) for item in items], class_names, grid, SWEEPS)
    clock = Clock()

    def load(item: int, rng: np.random.Generator) -> Sample:
        return ours(Sample.from_frame(dataset.frame(item)), rng)

    for row, item in enumerate(items):
        sample = clock.time("sample", "sparse3d", load, item, np.random.default_rng(row))
        expected = clock.time("sample", "plain", plain.load, row, np.random.default_rng(row))
        batch = clock.time("voxels", "sparse3d", preprocessor, [sample])["batch"]
        coords, _ = clock.time("voxels", "plain", plain.voxelize, expected.points)
        check_same(sample, batch.voxels, expected, coords)
    return clock.summary()


class Clock:
    """Times of the two forms of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, list[float]]] = {}

    def time(self, part: str, form: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, note how long it took, and return what it returned."""
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds.setdefault(part, {}).setdefault(form, []).append(time.perf_counter() - start)
        return result

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the median milliseconds of each part and of their sum, and how many times faster ours is."""
        medians = {
            part: {form: statistics.median(values) * 1e3 for form, values in forms.items()}
            for part, forms in self.seconds.items()
        }
        medians["all"] = {form: sum(part[form] for part in medians.values()) for form in ("sparse3d", "plain")}
        return {part: {**forms, "speedup": forms["plain"] / forms["sparse3d"]} for part, forms in medians.items()}


def check_same(sample: Sample, voxels: Voxels, plain: PlainSample, coords: np.ndarray) -> None:
    """Compare a sample with its plain form; what rounding puts on the other side of a bound may differ."""
    counts = [(len(sample.points), len(plain.points)), (len(voxels.coords), len(coords))]
    same_boxes = sample.gt.labels.tolist() == plain.labels.tolist() and np.allclose(
        sample.gt.boxes.numpy()[:, :6], plain.boxes[:, :6], atol=1e-3
    )
    if not same_boxes or any(abs(a - b) > 1e-3 * max(a, b) + 2 for a, b in counts):
        raise SystemExit(f"benchmark_data: the two forms differ: (points, voxels) {counts}, same boxes: {same_boxes}")


def time_loader(config: Config, workers: int, samples: int) -> dict[str, Any]:
    """Return frames a second of the training loader after its first batch."""
    loader_config = {**config.train_dataloader, "num_workers": workers, "persistent_workers": False}
    batches = iter(Runner.build_dataloader(loader_config, seed=0))
    next(batches)
    start, count = time.perf_counter(), 0
    for batch in islice(batches, max(1, samples // loader_config["batch_size"])):
        count += len(batch)
    return {"workers": workers, "frames_per_second": count / (time.perf_counter() - start)}


# -- report ------------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> None:
    """Print the three parts."""
    console = Console()
    steps = Table("step", "ms", "share", title="where the time goes, one process")
    for step in results["steps"]:
        steps.add_row(step["step"], f"{step['milliseconds']:.2f}", f"{step['share']:.0%}")
    steps.add_row("all", f"{sum(step['milliseconds'] for step in results['steps']):.2f}", "")
    console.print(steps)
    loader = Table("workers", "frames a second", title="the training loader")
    for row in results["loader"]:
        loader.add_row(str(row["workers"]), f"{row['frames_per_second']:.1f}")
    console.print(loader)
    comparison = Table("", "sparse3d, ms", "plain, ms", "times", title="the same work, one process")
    for part, row in results["comparison"].items():
        comparison.add_row(part, f"{row['sparse3d']:.1f}", f"{row['plain']:.1f}", f"{row['speedup']:.1f}")
    console.print(comparison)


if __name__ == "__main__":
    main()
