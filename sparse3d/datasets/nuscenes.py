"""nuScenes as a torch data set: index row -> `Frame` -> transforms -> `Sample`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..registry import DATASETS
from ..structures import Frame, Sample
from .index import FrameIndex
from .infos import read_mmdet3d_infos
from .nuscenes_schema import DETECTION_CLASSES
from .transforms import build_transform, select_instances
from .transforms.compose import Transform


class SampleError(RuntimeError):
    """A transform failed; the message names the sample, its file and the transform."""


@DATASETS.register_module()
class NuScenesDataset(Dataset):
    """Samples of nuScenes, or of a data set in its format.

    Each sample's transforms get their own numpy generator. For training it is seeded from torch's generator, which a
    data loader seeds differently in each worker: a run with the same torch seed repeats itself, epochs differ. With
    ``test_mode`` it depends on ``seed`` and the sample alone.

    Args:
        data_root: folder that holds `samples/` and `sweeps/`.
        index: the Arrow index, or an mmdetection3d v1.1 info file (`.pkl`), relative to ``data_root``.
        class_names: classes in the order of the labels.
        pipeline: transforms ``(sample, rng) -> sample``, or the dicts of registered ones.
        min_points: boxes with fewer annotated LiDAR points leave ``gt``.
        test_mode: draw the same random numbers for a sample every time.
        seed: changes all random numbers; not negative.
        indices: take the first so many frames, or those at these positions.

    Raises:
        FileNotFoundError: if the index or the data root is missing.
        ValueError: if the index cannot be read, or an argument is out of range.
    """

    def __init__(
        self,
        data_root: str | os.PathLike,
        index: str | os.PathLike,
        class_names: Sequence[str] = DETECTION_CLASSES,
        pipeline: Sequence[Mapping[str, Any] | Transform] = (),
        min_points: int = 0,
        test_mode: bool = False,
        seed: int = 0,
        indices: int | Sequence[int] | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"NuScenesDataset: seed must not be negative, got {seed}")
        self.frames = open_frames(Path(data_root), Path(data_root) / index)
        self.positions = _positions(indices, len(self.frames))
        self.metainfo = {"dataset_type": "nuscenes", "classes": tuple(class_names)}
        self.pipeline = [build_transform(transform) for transform in pipeline]
        self.min_points = min_points
        self.test_mode = test_mode
        self.seed = seed

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> Sample:
        """Return sample ``item`` after the pipeline.

        Raises:
            SampleError: if a transform fails.
        """
        frame = self.frame(item)
        sample, rng = Sample.from_frame(frame), self._generator(item)
        for transform in self.pipeline:
            sample = _apply(transform, sample, rng)
        return self._without_sparse_boxes(sample)

    def frame(self, item: int) -> Frame:
        """Return the index record of sample ``item``."""
        return self.frames[self.positions[item]]

    def _generator(self, item: int) -> np.random.Generator:
        if self.test_mode:
            return np.random.default_rng([self.seed, self.positions[item]])
        return np.random.default_rng([self.seed, int(torch.randint(2**63 - 1, ()))])

    def _without_sparse_boxes(self, sample: Sample) -> Sample:
        if self.min_points == 0 or "gt" not in sample:
            return sample
        return sample.replace(gt=select_instances(sample.gt, sample.gt.num_points >= self.min_points))


def open_frames(data_root: Path, index: Path) -> Sequence[Frame]:
    """Return the frames of an Arrow index, or of an mmdetection3d info file (`.pkl`)."""
    if index.suffix == ".pkl":
        return read_mmdet3d_infos(index, data_root)
    return FrameIndex(index, data_root)


def _positions(indices: int | Sequence[int] | None, count: int) -> list[int]:
    if indices is None:
        return list(range(count))
    positions = list(range(indices)) if isinstance(indices, int) else [int(position) for position in indices]
    if positions and not 0 <= min(positions) <= max(positions) < count:
        raise ValueError(f"NuScenesDataset: indices must lie in [0, {count}), got {indices}")
    return positions


def _apply(transform: Transform, sample: Sample, rng: np.random.Generator) -> Sample:
    try:
        return transform(sample, rng)
    except Exception as error:
        frame, name = sample.frame, getattr(transform, "__name__", type(transform).__name__)
        raise SampleError(f"sample {frame.token} ({frame.lidar.path}): {name}: {error}") from error
