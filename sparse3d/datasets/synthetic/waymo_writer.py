"""Writes a synthetic data set in the format of the Waymo Open Dataset v2: Parquet components, a segment a scene."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from .target import fresh_target, mark, run_jobs
from .waymo_recording import SegmentJob, record_segment


@dataclass(frozen=True)
class WaymoSummary:
    """What was written."""

    root: str
    training: tuple[str, ...]  # names of segments
    validation: tuple[str, ...]
    frames: int
    labels: int


def write_synthetic_waymo(
    root: str | Path,
    *,
    scenes: int,
    val_scenes: int,
    frames: int,
    seed: int,
    laser_scale: float = 1.0,
    image_scale: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
    force: bool = False,
) -> WaymoSummary:
    """Write a procedural driving world, recorded by a Waymo car: five lasers, five cameras, labels, keypoints.

    The same arguments write the same contents, whatever the number of workers; a segment depends on the seed and on its
    number alone. With more than one worker, processes are spawned: call this from a module, below
    ``if __name__ == "__main__"``.

    Args:
        root: folder to create.
        scenes: segments of `training/`.
        val_scenes: segments of `validation/`.
        frames: frames a segment, 10 Hz.
        seed: not negative.
        laser_scale: range images have 64 x 2650 and 200 x 600 cells, each side times this.
        image_scale: images have 1920 x 1280 and 1920 x 886 pixels times this; intrinsics follow.
        workers: processes; None for one a core.
        progress: show a bar.
        force: replace a folder that an earlier call wrote.

    Raises:
        ValueError: if an argument is out of range.
        FileExistsError: if ``root`` holds anything and may not be replaced.
    """
    _check(scenes, val_scenes, frames, seed, laser_scale, image_scale, workers)
    splits = {"training": range(scenes), "validation": range(scenes, scenes + val_scenes)}
    jobs = {
        split: [SegmentJob(split, number, seed, frames, laser_scale, image_scale) for number in numbers]
        for split, numbers in splits.items()
    }
    every = [job for part in jobs.values() for job in part]
    root = Path(root).absolute()
    with fresh_target(root, force=force) as partial_root:
        labels = [count for _, count in run_jobs(record_segment, partial_root, every, workers, progress=progress)]
        names = {split: tuple(job.name for job in part) for split, part in jobs.items()}
        summary = WaymoSummary(str(root), **names, frames=frames * len(every), labels=sum(labels))
        settings = {**asdict(every[0]), **asdict(summary)}
        mark(partial_root, {name: value for name, value in settings.items() if name not in ("split", "number", "root")})
    return summary


def _check(
    scenes: int,
    val_scenes: int,
    frames: int,
    seed: int,
    laser_scale: float,
    image_scale: float,
    workers: int | None,
) -> None:
    wrong = {
        "scenes and val_scenes must not be negative, nor both 0": min(scenes, val_scenes) < 0
        or scenes + val_scenes == 0,
        "frames must be at least 1": frames < 1,
        "seed must not be negative": seed < 0,
        "laser_scale and image_scale must be 0.01 to 2": not 0.01 <= min(laser_scale, image_scale) <= 2
        or max(laser_scale, image_scale) > 2,
        "workers must be at least 1": workers is not None and workers < 1,
    }
    found = [text for text, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(f"write_synthetic_waymo: {found[0]}")
