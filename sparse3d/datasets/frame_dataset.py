"""A data set of frames for torch: index row -> `Frame` -> transforms -> `Sample`; each kind of data is a subclass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from ..structures import Frame, Sample
from .history import History
from .index import FrameIndex
from .infos import read_mmdet3d_infos
from .sampling import Draw, class_balanced_rows, shown_classes
from .transforms import build_pipeline, select_instances
from .transforms.compose import Transform

MOST_SKIPPED = 100  # bad samples in a row after which the data is taken to be somewhere else


class SampleError(RuntimeError):
    """A transform failed; the message names the sample, its file and the transform."""


class FrameDataset(Dataset):
    """Samples of the frames of an index; a subclass says what kind of data they are.

    Each sample's transforms get their own numpy generator. For training it is seeded from the ``Draw`` of the sampler
    (its seed, the epoch, the item), with ``test_mode`` from the frame alone; in both from ``seed`` too. So it matters
    neither which worker loads a sample, nor whether the run was resumed.

    Args:
        data_root: folder that the index's paths begin in.
        index: the Arrow index, or an mmdetection3d v1.1 info file (`.pkl`), relative to ``data_root``.
        class_names: classes in the order of the labels.
        pipeline: transforms ``(sample, rng) -> sample``, or the dicts of registered ones.
        min_points: boxes with fewer annotated LiDAR points leave ``gt``.
        test_mode: draw the same random numbers for a frame every time.
        seed: changes all random numbers; not negative.
        indices: take the first so many frames, or those at these positions.
        interval: take every so many-th of them.
        class_balanced: draw frames so that all classes are shown about equally often (CBGS); which ones depends on
            ``seed``. Objects without a LiDAR point do not count.
        past: for each frame, also take those that were recorded about these times before it, in seconds; negative
            times lie after it.
        skip_bad: where a sample cannot be loaded, return the next one that can, and say so in its ``skipped``.

    Raises:
        FileNotFoundError: if the index or the data root is missing.
        ValueError: if the index cannot be read, or an argument is out of range.
    """

    kind: ClassVar[str]  # the data set's name, as the metainfo says it

    def __init__(
        self,
        data_root: str | os.PathLike,
        index: str | os.PathLike,
        class_names: Sequence[str],
        pipeline: Sequence[Mapping[str, Any] | Transform] = (),
        min_points: int = 0,
        test_mode: bool = False,
        seed: int = 0,
        indices: int | Sequence[int] | None = None,
        interval: int = 1,
        class_balanced: bool = False,
        past: Sequence[float] = (),
        skip_bad: bool = False,
    ) -> None:
        if seed < 0 or interval < 1:
            raise ValueError(f"{type(self).__name__}: seed is at least 0, interval at least 1, got {seed}, {interval}")
        self.frames = open_frames(Path(data_root), Path(data_root) / index)
        self.positions = _positions(indices, len(self.frames))[::interval]
        if class_balanced:
            shows = shown_classes(self.frames, class_names, min_points=1)[self.positions]
            self.positions = self.positions[class_balanced_rows(shows, np.random.default_rng(seed))]
        self.history = History(self.frames, past) if past else None
        self.metainfo = {"dataset_type": self.kind, "classes": tuple(class_names)}
        self.pipeline = build_pipeline(pipeline)
        self.min_points = min_points
        self.test_mode = test_mode
        self.seed = seed
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int | Draw) -> Sample:
        """Return the sample of an item, or of a sampler's draw, after the pipeline.

        Raises:
            SampleError: if a transform fails; with ``skip_bad``, if that happens to many samples in a row.
        """
        draw = item if isinstance(item, Draw) else Draw(item)
        return self._load_or_stand_in(draw) if self.skip_bad else self._load(draw)

    def frame(self, item: int) -> Frame:
        """Return the index record of sample ``item``."""
        return self.frames[int(self.positions[item])]

    def past(self, item: int) -> tuple[Frame, ...]:
        """Return the index records of the earlier frames that belong to sample ``item``, the latest first."""
        if self.history is None:
            return ()
        return tuple(self.frames[row] for row in self.history.rows(int(self.positions[item])))

    def _load(self, draw: Draw) -> Sample:
        sample, rng = Sample.from_frame(self.frame(draw), draw.epoch, self.past(draw)), self._generator(draw)
        for transform in self.pipeline:
            sample = _apply(transform, sample, rng)
        return self._without_sparse_boxes(sample)

    def _load_or_stand_in(self, draw: Draw) -> Sample:
        skipped: list[str] = []
        for step in range(min(len(self), MOST_SKIPPED)):
            try:
                sample = self._load(draw.other((draw + step) % len(self)))
            except SampleError as error:
                skipped.append(str(error))
            else:
                return sample.replace(skipped=tuple(dict.fromkeys(skipped))) if skipped else sample
        raise SampleError(f"{len(skipped)} samples in a row could not be loaded; the first: {skipped[0]}")

    def _generator(self, draw: Draw) -> np.random.Generator:
        if self.test_mode:
            return np.random.default_rng([self.seed, self.positions[draw]])
        return np.random.default_rng([self.seed, draw.seed, draw.epoch, int(draw)])

    def _without_sparse_boxes(self, sample: Sample) -> Sample:
        if self.min_points == 0 or "gt" not in sample:
            return sample
        return sample.replace(gt=select_instances(sample.gt, sample.gt.num_points >= self.min_points))


def open_frames(data_root: Path, index: Path) -> Sequence[Frame]:
    """Return the frames of an Arrow index, or of an mmdetection3d info file (`.pkl`)."""
    if index.suffix == ".pkl":
        return read_mmdet3d_infos(index, data_root)
    return FrameIndex(index, data_root)


def _positions(indices: int | Sequence[int] | None, count: int) -> np.ndarray:
    if indices is None:
        return np.arange(count)
    positions = np.arange(indices) if isinstance(indices, int) else np.array(indices, dtype=np.int64)
    if len(positions) and not 0 <= positions.min() <= positions.max() < count:
        raise ValueError(f"indices must lie in [0, {count}), got {indices}")
    return positions


def _apply(transform: Transform, sample: Sample, rng: np.random.Generator) -> Sample:
    try:
        return transform(sample, rng)
    except Exception as error:
        frame, name = sample.frame, getattr(transform, "__name__", type(transform).__name__)
        raise SampleError(f"sample {frame.token} ({frame.lidar.path}): {name}: {error}") from error
