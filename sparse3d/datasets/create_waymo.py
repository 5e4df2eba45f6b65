"""Writing the index of the Waymo Open Dataset, v1 or v2; `tools/create_data.py waymo` calls this.

    <root>/training, validation, testing     sources: <tag>/<segment>.parquet (v2) or <segment>.tfrecord (v1)
    <root>/sparse3d_train.arrow, ...         the index of each split
    <root>/sparse3d_points, sparse3d_images  packed points and images, where they are asked for; one file a segment

A segment is the unit of work: one worker has it, a few of its rows are in memory at a time, and it is done when its
part of the index stands in `sparse3d_<split>.partial/`. A run that was interrupted takes up where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ..progress import track
from .index import is_current_index, merge_indexes, write_index
from .packed_file import IMAGES, pack_points, packed_writer
from .processes import run_in_processes
from .waymo_frames import segment_frames
from .waymo_parquet import COMPONENTS
from .waymo_records import FrameRecord
from .waymo_schema import SPLITS
from .waymo_v1 import RecordSegment
from .waymo_v2 import ParquetSegment

ORIGINAL = "original"
POINT_FORMS = {ORIGINAL: None, "float16": ".f16", "float32": ".f32"}
IMAGE_FORMS = {ORIGINAL: None, "packed": IMAGES}

Segment: TypeAlias = "ParquetSegment | RecordSegment"


@dataclass(frozen=True)
class WaymoIndexes:
    """What was written.

    Args:
        paths: one index a split.
        skipped: what was wrong with the segments that were left out.
    """

    paths: tuple[Path, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class SegmentJob:
    """What a worker needs to index a segment."""

    root: Path
    segment: Segment
    part: Path
    metadata: Mapping[str, str]

    def packed(self, folder: str, suffix: str) -> Path:
        """Return the packed file of the segment in a folder."""
        return self.root / folder / self.metadata["split"] / f"{self.segment.name}{suffix}"


def create_waymo_index(
    root: str | os.PathLike,
    *,
    splits: Sequence[str] | None = None,
    points: str = ORIGINAL,
    images: str = ORIGINAL,
    workers: int | None = None,
    skip_bad: bool = False,
) -> WaymoIndexes:
    """Write `sparse3d_<split>.arrow` for the splits below a folder.

    Args:
        root: folder that holds `training/`, `validation/` or `testing/`.
        splits: of ``train``, ``val``, ``test``; default: those whose folder is there.
        points: ``"original"`` decodes them whenever they are loaded, ``"float32"`` and ``"float16"`` write packed ones.
        images: ``"original"`` or ``"packed"``.
        workers: processes; None for one a core.
        skip_bad: leave out segments that cannot be read, instead of stopping at the first one.

    Raises:
        FileNotFoundError: if there is no split, or a component of a segment is missing.
        ValueError: if an argument is unknown, or a segment is damaged or has no labels; the message names the file.
    """
    if points not in POINT_FORMS or images not in IMAGE_FORMS:
        raise ValueError(f"points are one of {', '.join(POINT_FORMS)}, images of {', '.join(IMAGE_FORMS)}")
    root = Path(root).absolute()
    paths, skipped = [], []
    for split, folder in _split_folders(root, splits).items():
        form = {"dataset": "waymo", "split": split, "points": points, "images": images}
        path, bad = _write_split(root, folder, form, workers or os.cpu_count() or 1, skip_bad=skip_bad)
        paths.append(path)
        skipped += bad
    return WaymoIndexes(tuple(paths), tuple(skipped))


def find_segments(folder: Path) -> list[Segment]:
    """Return the segments in a split's folder, by name.

    Raises:
        ValueError: if there are segments of v1 and of v2.
    """
    records = sorted(folder.glob("*.tfrecord"))
    names = sorted({path.stem for tag in COMPONENTS for path in folder.glob(f"{tag}/*.parquet")})
    if records and names:
        raise ValueError(f"{folder}: it holds TFRecord files (v1) and Parquet files (v2); keep one kind in it")
    return [RecordSegment(path) for path in records] or [ParquetSegment(folder, name) for name in names]


def write_segment(job: SegmentJob) -> None:
    """Write the part of the index that is of one segment, and its packed files.

    Raises:
        FileNotFoundError: if a component is missing.
        ValueError: if a file is damaged or there are no labels; the message names the file.
    """
    records = job.segment.records(labelled=job.metadata["split"] != "test")
    suffix = POINT_FORMS[job.metadata["points"]]
    if suffix is not None:
        records = _with_packed_points(records, job.segment, job.packed("sparse3d_points", suffix))
    suffix = IMAGE_FORMS[job.metadata["images"]]
    if suffix is not None:
        records = _with_packed_images(records, job.segment, job.packed("sparse3d_images", suffix))
    write_index(job.part, segment_frames(records), job.metadata, job.root)


# -- splits -----------------------------------------------------------------------------------------------------------


def _split_folders(root: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    folders = {split: root / folder for folder, split in SPLITS.items()}
    unknown = [split for split in splits or () if split not in folders]
    if unknown:
        raise ValueError(f"the splits are {', '.join(folders)}, got {', '.join(unknown)}")
    present = {split: folder for split, folder in folders.items() if folder.is_dir()}
    absent = [str(folders[split]) for split in splits or () if split not in present]
    if absent or not present:
        raise FileNotFoundError(f"no such folder: {', '.join(absent or map(str, folders.values()))}")
    return {split: folder for split, folder in present.items() if splits is None or split in splits}


def _write_split(
    root: Path, folder: Path, form: Mapping[str, str], workers: int, *, skip_bad: bool
) -> tuple[Path, list[str]]:
    path = root / f"sparse3d_{form['split']}.arrow"
    segments = find_segments(folder)
    if not segments:
        raise FileNotFoundError(f"{folder}: it holds neither <tag>/*.parquet nor *.tfrecord")
    sources = [_checksum(segment) for segment in segments]
    whole = {**form, "source": hashlib.sha256("".join(sources).encode()).hexdigest(), "skipped": ""}
    if is_current_index(path, whole):
        return path, []
    parts = path.with_suffix(".partial")
    parts.mkdir(exist_ok=True)
    jobs = [
        SegmentJob(root, segment, parts / f"{segment.name}.arrow", {**form, "source": source})
        for segment, source in zip(segments, sources, strict=True)
    ]
    bad = _run(jobs, workers, skip_bad=skip_bad)
    good = [job.part for job in jobs if job.segment.name not in bad]
    merge_indexes(path, good, {**whole, "skipped": ", ".join(bad)})
    if not bad:  # a later run takes what is good from them
        shutil.rmtree(parts)
    return path, list(bad.values())


def _checksum(segment: Segment) -> str:
    """Return what tells one state of a segment's files from another: their names and sizes."""
    text = "".join(f"{file.parent.name}/{file.name} {file.stat().st_size}\n" for file in segment.files())
    return hashlib.sha256(text.encode()).hexdigest()


def _run(jobs: Sequence[SegmentJob], workers: int, *, skip_bad: bool) -> dict[str, str]:
    """Index the segments whose part is not there; returns what was wrong with bad ones, by name."""
    left = [job for job in jobs if not is_current_index(job.part, job.metadata)]
    bad: dict[str, str] = {}
    for job, error in track(
        run_in_processes(_try, left, min(workers, len(left))), f"indexing {jobs[0].metadata['split']}", len(left)
    ):
        if error is not None and not skip_bad:
            raise error
        if error is not None:
            bad[job.segment.name] = f"{job.segment.source}: {error}"
    return dict(sorted(bad.items()))


def _try(job: SegmentJob) -> Exception | None:
    try:
        write_segment(job)
    except (OSError, ValueError) as error:
        return error
    return None


# -- packed files -----------------------------------------------------------------------------------------------------


def _with_packed_points(records: list[FrameRecord], segment: Segment, path: Path) -> list[FrameRecord]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed_writer(path) as writer:
        offsets = {stamp: writer.append(pack_points(points, path.suffix)) for stamp, points in segment.scans()}
    return [replace(record, path=str(path), offset=offsets[record.timestamp]) for record in records]


def _with_packed_images(records: list[FrameRecord], segment: Segment, path: Path) -> list[FrameRecord]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed_writer(path) as writer:
        offsets = {place: writer.append(image) for place, image in segment.images()}
    return [
        replace(
            record,
            shots=tuple(
                replace(shot, path=str(path), offset=offsets[shot.offset, shot.camera]) for shot in record.shots
            ),
        )
        for record in records
    ]
