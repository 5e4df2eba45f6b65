"""Ask whether a detector can learn a few frames by heart.

The test of a new model or a new data set before any long training: no augmentation, the same frames for training and
scoring, the same choice of boxes in both. Exits with status 1 when the mean AP stays below the target.

    python tools/overfit.py CONFIG --frames 1
    python tools/overfit.py CONFIG --frames 1 --data DIR --cfg-options grid.point_range=[-28.8,-28.8,-5,28.8,28.8,3]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import sparse3d  # noqa: F401  # before torch: it says how threads wait

# isort: split
import numpy as np
import torch
from common import add_config, read_config, work_dir
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import nn

from sparse3d.clock import OneCycleByProgress
from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import Compose, LoadAnnotations
from sparse3d.evaluation import NuScenesMetric, NuScenesResult
from sparse3d.progress import make_progress
from sparse3d.registry import MODELS
from sparse3d.structures import Frame, Grid, Sample
from sparse3d.visualization import draw_bev, save_image

BATCH_SIZE = 2
GRADIENT_NORM = 10.0
NORM_MOMENTUM = 0.1  # a run of a few hundred steps needs running statistics that follow faster than the published ones


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train a detector on a few frames without augmentation until it knows them by heart.",
        epilog="Exit status: 0 when the target is reached, 1 when it is not.",
    )
    add_config(parser)
    parser.add_argument("--frames", type=int, default=1, help="how many frames to learn (default: %(default)s)")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with an index (sparse3d_*.arrow) or an info file (*.pkl) to use instead of the config's data set",
    )
    parser.add_argument(
        "--min-points", type=int, default=5, help="learn and score boxes with at least so many LiDAR points"
    )
    parser.add_argument("--target", type=float, default=0.9, help="mean AP to reach (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=400, help="give up after so many (default: %(default)s)")
    parser.add_argument("--every", type=int, default=25, help="score after so many iterations (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="for picture and weights (default: work_dirs/<config name>)")
    return parser.parse_args()


def main() -> None:
    """Learn, score, draw, and tell by the exit status."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    MMLogger.get_instance("overfit", log_level="WARNING")  # mmengine lists every parameter's initialisation otherwise
    torch.manual_seed(0)
    frames = _learnable_frames(arguments, config)
    samples = _load(frames, config)
    model = _build_model(config)

    metric = NuScenesMetric(class_names=config.class_names, min_points=arguments.min_points)
    best, result = 0.0, None
    for iteration in _fit(model, samples, arguments):
        result = _score(model, samples, metric)
        print(f"iteration {iteration}: mean AP over the classes that have boxes {result.mean_ap_present:.3f}")
        best = max(best, result.mean_ap_present)
        if best >= arguments.target:
            break
    print(result.table())
    folder = work_dir(arguments)
    _draw(model, samples, config, folder)
    _save(model, folder / "overfit.pth")
    reached = best >= arguments.target
    print(f"mean AP {best:.3f}, target {arguments.target}: {'reached' if reached else 'NOT reached'}")
    sys.exit(0 if reached else 1)


def _learnable_frames(arguments: argparse.Namespace, config: Config) -> list[Frame]:
    """Return the frames with only those annotations that are both learned and scored."""
    frames = _open_frames(arguments.data, config)
    if len(frames) < arguments.frames:
        raise SystemExit(f"overfit: asked for {arguments.frames} frames, the data set holds {len(frames)}")
    grid = Grid.build(config.grid)
    chosen = [_keep_learnable(frames[i], grid, arguments.min_points) for i in range(arguments.frames)]
    if not any(len(frame.annotations) for frame in chosen):
        raise SystemExit(f"overfit: no box with {arguments.min_points} points lies in the grid {grid.point_range}")
    return chosen


def _open_frames(folder: Path | None, config: Config) -> Sequence[Frame]:
    if folder is None:
        dataset = config.test_dataloader.dataset
        return open_frames(Path(dataset.data_root), Path(dataset.data_root) / dataset.index)
    indexes = sorted(folder.glob("sparse3d_*.arrow")) or sorted(folder.glob("*.pkl"))
    if not indexes:
        raise SystemExit(f"overfit: {folder} holds neither an index (sparse3d_*.arrow) nor an info file (*.pkl)")
    return open_frames(folder, indexes[0])


def _keep_learnable(frame: Frame, grid: Grid, min_points: int) -> Frame:
    if frame.annotations is None:
        raise SystemExit(f"overfit: frame {frame.token} is not annotated")
    low, high = np.split(np.array(grid.point_range), 2)
    centers = frame.annotations.boxes[:, :3]
    inside = ((centers >= low) & (centers < high)).all(axis=1)
    keep = inside & (frame.annotations.num_lidar_points >= min_points)
    return replace(frame, annotations=frame.annotations.select(keep))


def _load(frames: list[Frame], config: Config) -> list[Sample]:
    load = Compose([LoadAnnotations(config.class_names), *config.test_dataloader.dataset.pipeline])
    return [load(Sample.from_frame(frame), np.random.default_rng(0)) for frame in frames]


def _build_model(config: Config) -> BaseModel:
    model = MODELS.build(config.model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = NORM_MOMENTUM
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _fit(model: BaseModel, samples: list[Sample], arguments: argparse.Namespace) -> Iterator[int]:
    """Train, and yield the number of iterations done whenever it is time to score."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.01)
    schedule = OneCycleByProgress(peak_lr=arguments.lr, warmup=0.1)
    with make_progress() as progress:
        task = progress.add_task("learning by heart", total=arguments.iterations)
        for iteration in range(arguments.iterations):
            optimizer.param_groups[0]["lr"], _ = schedule.at(iteration / arguments.iterations)
            start = iteration * BATCH_SIZE % len(samples)
            loss = _step(model, samples[start : start + BATCH_SIZE], optimizer)
            progress.update(task, advance=1, description=f"learning by heart  loss {loss:.3f}")
            if (iteration + 1) % arguments.every == 0:
                yield iteration + 1


def _step(model: BaseModel, samples: list[Sample], optimizer: torch.optim.Optimizer) -> float:
    model.train()
    losses = model(**model.data_preprocessor(samples, training=True), mode="loss")
    loss, _ = model.parse_losses(losses)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _predict(model: BaseModel, samples: list[Sample]) -> list[Sample]:
    model.eval()
    return [model.test_step([sample])[0] for sample in samples]


def _score(model: BaseModel, samples: list[Sample], metric: NuScenesMetric) -> NuScenesResult:
    metric.results.clear()
    metric.process(samples, [sample.to_dict() for sample in _predict(model, samples)])
    return metric.score(metric.results)


def _draw(model: BaseModel, samples: list[Sample], config: Config, folder: Path) -> None:
    for sample in _predict(model, samples):
        path = folder / f"overfit_{sample.frame.token}.png"
        points = sample.get("points", torch.zeros(0, 3))  # a detector of images loads none
        save_image(path, draw_bev(points, sample.gt, sample.pred, config.class_names))
        print(f"picture: {path}")


def _save(model: BaseModel, path: Path) -> None:
    torch.save({"state_dict": model.state_dict()}, path)
    print(f"weights: {path}")


if __name__ == "__main__":
    main()
