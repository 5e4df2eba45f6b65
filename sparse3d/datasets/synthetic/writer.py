"""The entry of the room: writes a synthetic data set in nuScenes' on-disk format."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from ..nuscenes_schema import CAMERA_CHANNELS, LIDAR_CHANNEL
from ..nuscenes_splits import split_scenes
from .recording import SceneJob, record_scene
from .rig import KEY_INTERVAL, SWEEP_INTERVAL
from .tables import MAP_FILE, Tables, Tokens, merge_tables, shared_tables, write_tables
from .target import fresh_target, mark, run_jobs

SPLITS = {"v1.0-trainval": ("train", "val"), "v1.0-mini": ("mini_train", "mini_val")}
MOST_SWEEPS = KEY_INTERVAL // SWEEP_INTERVAL - 1


@dataclass(frozen=True)
class Summary:
    """What was written."""

    root: str
    version: str
    train: tuple[str, ...]  # scene names
    val: tuple[str, ...]
    samples: int
    annotations: int


def write_synthetic(
    root: str | Path,
    *,
    scenes: int,
    val_scenes: int,
    frames: int,
    seed: int,
    version: str = "v1.0-trainval",
    sweeps: int = 9,
    image_scale: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
    force: bool = False,
) -> Summary:
    """Write a procedural driving world as a nuScenes data set (v1.0 tables, samples, sweeps, maps).

    The same arguments write the same bytes, whatever the number of workers; a scene depends on the seed and on its name
    alone. Scene names are the first ones of the official splits. With more than one worker, processes are spawned: call
    this from a module, below ``if __name__ == "__main__"``.

    Args:
        root: folder to create.
        scenes: scenes of the training split.
        val_scenes: scenes of the validation split.
        frames: key frames a scene, 2 Hz.
        seed: not negative.
        version: ``"v1.0-trainval"`` or ``"v1.0-mini"`` (at most 8 + 2 scenes).
        sweeps: LiDAR revolutions (20 Hz) kept between key frames, evenly spread, 0 to 9.
        image_scale: images have 1600 x 900 pixels times this; intrinsics follow.
        workers: processes; None for one a core.
        progress: show a bar.
        force: replace a folder that an earlier call wrote.

    Raises:
        ValueError: if an argument is out of range, or the splits have fewer scenes than asked for.
        FileExistsError: if ``root`` holds anything and may not be replaced.
    """
    _check(frames=frames, seed=seed, sweeps=sweeps, image_scale=image_scale, workers=workers)
    names = _scene_names(version, scenes, val_scenes)
    root = Path(root).absolute()
    jobs = [SceneJob(name, seed, frames, sweeps, image_scale) for split in names for name in split]
    with fresh_target(root, force=force) as partial_root:
        tables = _record(partial_root, jobs, workers=workers, progress=progress)
        write_tables(partial_root / version, tables)
        summary = Summary(
            str(root), version, *names, samples=len(tables["sample"]), annotations=len(tables["sample_annotation"])
        )
        _mark(partial_root, jobs[0], summary)
    return summary


def _record(root: Path, jobs: list[SceneJob], *, workers: int | None, progress: bool) -> Tables:
    """Write all sensor files; returns all tables, scenes in the order of the jobs."""
    for channel in (LIDAR_CHANNEL, *CAMERA_CHANNELS):
        for kind in ("samples", "sweeps"):
            (root / kind / channel).mkdir(parents=True)
    finished = run_jobs(record_scene, root, jobs, workers, progress=progress)
    by_scene = {job.name: tables for job, tables in finished}
    tokens = Tokens(jobs[0].seed)
    _write_map(root)
    logs = [by_scene[job.name]["log"][0]["token"] for job in jobs]
    return merge_tables([shared_tables(tokens, logs), *(by_scene[job.name] for job in jobs)])


def _write_map(root: Path) -> None:
    """Write the picture that the map record names: no place is known to be drivable."""
    path = root / MAP_FILE
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((64, 64), dtype=np.uint8))


# -- arguments and target --------------------------------------------------------------------------------------------


def _check(*, frames: int, seed: int, sweeps: int, image_scale: float, workers: int | None) -> None:
    if frames < 1:
        raise ValueError(f"write_synthetic: frames must be at least 1, got {frames}")
    if seed < 0:
        raise ValueError(f"write_synthetic: seed must not be negative, got {seed}")
    if not 0 <= sweeps <= MOST_SWEEPS:
        raise ValueError(f"write_synthetic: sweeps must be 0 to {MOST_SWEEPS} (20 Hz between key frames), got {sweeps}")
    if not 0.01 <= image_scale <= 2.0:
        raise ValueError(f"write_synthetic: image_scale must be 0.01 to 2, got {image_scale}")
    if workers is not None and workers < 1:
        raise ValueError(f"write_synthetic: workers must be at least 1, got {workers}")


def _scene_names(version: str, scenes: int, val_scenes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if version not in SPLITS:
        raise ValueError(f"write_synthetic: version must be one of {', '.join(SPLITS)}, got {version!r}")
    counts, chosen = {"scenes": scenes, "val_scenes": val_scenes}, []
    for (argument, count), split in zip(counts.items(), SPLITS[version], strict=True):
        available = split_scenes(split)
        if not 0 <= count <= len(available):
            raise ValueError(
                f"write_synthetic: {argument} must be 0 to {len(available)}, the size of nuScenes' split {split!r}, "
                f"got {count}"
            )
        chosen.append(available[:count])
    if scenes + val_scenes == 0:
        raise ValueError("write_synthetic: scenes and val_scenes are both 0, so there is nothing to write")
    return chosen[0], chosen[1]


def _mark(root: Path, job: SceneJob, summary: Summary) -> None:
    settings = {**asdict(job), **asdict(summary)}
    for local in ("name", "root"):
        del settings[local]
    mark(root, settings)
