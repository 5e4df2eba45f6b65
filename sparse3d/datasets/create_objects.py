"""Writing the object database of a split from its index; `tools/create_data.py objects` calls this.

Like the index, it is written in parts to `<name>.partial/`, which become one file at the end: a run that was
interrupted takes up where it stopped, and a database whose index and settings did not change is left as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from torch.utils.data import DataLoader, Dataset

from ..progress import track
from .arrow_file import arrow_metadata, arrow_writer, merge_arrow, open_arrow
from .frame_dataset import FrameDataset
from .index import FrameIndex
from .nuscenes import NuScenesDataset
from .nuscenes_schema import DETECTION_CLASSES
from .object_database import COLUMNS, IMAGES, OBJECTS, encode_objects
from .transforms import LoadAnnotations, LoadImages, LoadPoints, LoadWaymoPoints
from .waymo import WaymoDataset

FRAMES_PER_PART = 40


@dataclass(frozen=True)
class Source:
    """How the objects of a data set are loaded."""

    dataset: type[FrameDataset]
    class_names: Sequence[str]
    loader: type[LoadPoints]
    sweeps: int  # scans before the key frame that published pipelines take
    keypoints: bool = False  # whether people have them


SOURCES = MappingProxyType(
    {
        "nuscenes": Source(NuScenesDataset, DETECTION_CLASSES, LoadPoints, sweeps=9),
        "waymo": Source(WaymoDataset, ("Vehicle", "Pedestrian", "Cyclist"), LoadWaymoPoints, sweeps=0, keypoints=True),
    }
)


@dataclass(frozen=True)
class Part:
    """One part of a database: frames ``start`` to ``stop`` of an index."""

    path: Path
    data_root: Path
    index: Path
    start: int
    stop: int
    source: Source
    sweeps: int
    images: bool
    metadata: Mapping[str, str]


def create_object_database(
    root: str | os.PathLike,
    index: str | os.PathLike,
    sweeps: int | None = None,
    workers: int | None = None,
    images: bool = False,
) -> Path:
    """Write the objects of an index with their points to `<index>_objects.arrow` beside it.

    Args:
        root: the data root.
        index: the Arrow index, relative to ``root``.
        sweeps: scans before the key frame, as in the loader of the pipeline that will paste; None for as many as
            published pipelines take: 9 of nuScenes, none of Waymo.
        workers: processes; None for one a core.
        images: cut the objects out of the images too.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if the index is missing.
        ValueError: if it cannot be read.
        SampleError: if a frame is not annotated, or one of its files is missing or damaged.
    """
    root, index = Path(root).absolute(), Path(root).absolute() / index
    frames = FrameIndex(index, root)
    path = index.with_name(f"{index.stem}_objects.arrow")
    source = SOURCES[frames.metadata["dataset"]]
    sweeps = source.sweeps if sweeps is None else sweeps
    metadata = {
        **_identity(frames),
        "sweeps": str(sweeps),
        COLUMNS: str(source.loader(sweeps=sweeps).num_columns),
        IMAGES: "yes" if images else "no",
    }
    if _is_current(path, metadata):
        return path
    folder = path.with_suffix(".partial")
    folder.mkdir(exist_ok=True)
    parts = [
        Part(
            folder / f"{start:07d}.arrow", root, index, start, start + FRAMES_PER_PART, source, sweeps, images, metadata
        )
        for start in range(0, len(frames), FRAMES_PER_PART)
    ]
    left = [part for part in parts if not _is_current(part.path, metadata)]
    for _ in track(_written(left, workers or os.cpu_count() or 1), f"cutting out the objects of {index.name}"):
        pass
    merge_arrow(path, [part.path for part in parts], OBJECTS, metadata)
    shutil.rmtree(folder)
    return path


def _identity(frames: FrameIndex) -> dict[str, str]:
    """Return what tells one index from another."""
    source = {f"index.{key}": value for key, value in frames.metadata.items() if key != "sparse3d_version"}
    return {**source, "index.frames": str(len(frames))}


def _is_current(path: Path, metadata: Mapping[str, str]) -> bool:
    if not path.is_file():
        return False
    try:
        found = arrow_metadata(open_arrow(path, OBJECTS))
    except ValueError:  # damaged, or of another version: it is written anew
        return False
    return all(found.get(key) == value for key, value in metadata.items())


def _written(parts: list[Part], workers: int) -> DataLoader:
    """Return an iterable that writes a part a step, in the worker processes of a data loader."""
    return DataLoader(_Parts(parts), batch_size=None, num_workers=workers if min(workers, len(parts)) > 1 else 0)


class _Parts(Dataset):
    """Parts that are written when they are asked for."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, item: int) -> str:
        part = self.parts[item]
        _write_part(part)
        return part.path.name


def _write_part(part: Part) -> None:
    class_names = part.source.class_names
    load = [part.source.loader(sweeps=part.sweeps), *([LoadImages()] if part.images else [])]
    load.append(LoadAnnotations(class_names, keypoints=part.source.keypoints))
    dataset = part.source.dataset(part.data_root, part.index, class_names=class_names, pipeline=load)
    rows = range(part.start, min(part.stop, len(dataset)))
    batches = [encode_objects(dataset[row], class_names) for row in rows]
    with arrow_writer(part.path, OBJECTS, part.metadata) as writer:
        writer.write_table(pa.Table.from_batches(batches, OBJECTS.schema).combine_chunks())
