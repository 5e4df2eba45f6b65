"""Writing the index of nuScenes from its raw tables; `tools/create_data.py` calls this.

One part a scene is written to `sparse3d_<split>.partial/`, and the parts become one file at the end. A run that was
interrupted takes up at the scene where it stopped; an index whose tables did not change is left as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from ..progress import make_progress, track
from .index import is_current_index, merge_indexes, write_index
from .nuscenes_frames import scene_frames
from .nuscenes_schema import VERSIONS, full_version
from .nuscenes_splits import split_scenes
from .nuscenes_tables import Tables, load_tables, tables_checksum, tables_size


def create_nuscenes_index(
    root: str | os.PathLike,
    version: str,
    splits: Sequence[str] | None = None,
    out: str | os.PathLike | None = None,
) -> list[Path]:
    """Write `sparse3d_<split>.arrow` for the splits of a version.

    Args:
        root: folder that holds the tables (`v1.0-mini/`), `samples/` and `sweeps/`.
        version: ``v1.0-mini``, ``v1.0-trainval`` or ``v1.0-test``; ``mini``, ``trainval``, ``test`` do too.
        splits: the splits to write (default: those of the version that have a scene in the tables).
        out: folder to write to (default: ``root``).

    Returns:
        The files, one a split.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if the version or a split does not exist, no scene of a split is in the tables, or they are damaged.
    """
    version = full_version(version)
    wanted = _checked_splits(version, splits)
    root, out = Path(root).absolute(), Path(out or root).absolute()
    paths = {split: out / f"sparse3d_{split}.arrow" for split in wanted}
    checksum = _checksum(root / version)
    metadata = {split: _metadata(version, split, checksum) for split in wanted}
    done = {split for split in wanted if is_current_index(paths[split], metadata[split])}
    if len(done) < len(wanted):
        tables = _load(root / version, [split for split in wanted if split not in done])
        out.mkdir(parents=True, exist_ok=True)
        for split in _present(tables, wanted, done, all_required=splits is not None):
            _write_split(tables, root, paths[split], metadata[split])
            done.add(split)
    return [paths[split] for split in wanted if split in done]


def _checked_splits(version: str, splits: Sequence[str] | None) -> Sequence[str]:
    known = VERSIONS[version]
    unknown = [split for split in splits or () if split not in known]
    if unknown:
        raise ValueError(f"{version} has the splits {', '.join(known)}, got {', '.join(unknown)}")
    return known if splits is None else splits


def _metadata(version: str, split: str, checksum: str) -> dict[str, str]:
    return {"dataset": "nuscenes", "version": version, "split": split, "tables_checksum": checksum}


def _checksum(folder: Path) -> str:
    with make_progress(counts=False) as progress:
        task = progress.add_task(f"checking the tables of {folder.name}", total=tables_size(folder))
        return tables_checksum(folder, lambda amount: progress.advance(task, amount))


def _load(folder: Path, splits: Sequence[str]) -> Tables:
    scenes = [scene for split in splits for scene in split_scenes(split)]
    with make_progress(counts=False) as progress:
        task = progress.add_task(f"reading the tables of {folder.name}", total=tables_size(folder))
        return load_tables(folder, scenes, lambda amount: progress.advance(task, amount))


def _present(tables: Tables, wanted: Sequence[str], done: Collection[str], *, all_required: bool) -> list[str]:
    """Return the splits that are still to be written and have a scene in the tables."""
    left = [split for split in wanted if split not in done]
    present = [split for split in left if any(scene in tables.scenes for scene in split_scenes(split))]
    if len(present) < len(left) and (all_required or not (present or done)):
        absent = [split for split in left if split not in present]
        raise ValueError(f"the tables hold no scene of {', '.join(absent)}; see sparse3d.datasets.nuscenes_splits")
    return present


def _write_split(tables: Tables, root: Path, path: Path, metadata: dict[str, str]) -> None:
    parts_folder = path.with_suffix(".partial")
    parts_folder.mkdir(exist_ok=True)
    scenes = [scene for scene in split_scenes(metadata["split"]) if scene in tables.scenes]
    parts = [parts_folder / f"{scene}.arrow" for scene in scenes]
    for scene, part in track(list(zip(scenes, parts, strict=True)), f"indexing {metadata['split']}"):
        if not is_current_index(part, metadata):
            write_index(part, scene_frames(tables, scene, root), metadata, root)
    merge_indexes(path, parts, metadata)
    shutil.rmtree(parts_folder)
