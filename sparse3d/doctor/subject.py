"""What the checks look at: a config, and the parts of it that several checks need, made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from torch.utils.data import Dataset

from ..datasets.frame_dataset import open_frames
from ..datasets.nuscenes_schema import CATEGORY_TO_CLASS
from ..registry import DATASETS
from ..structures import Frame, Grid, Sample

OK, NOTE, PROBLEM, SKIPPED = "ok", "note", "problem", "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Args:
        check: name of the check.
        status: ``"ok"``, ``"note"`` (worth a look), ``"problem"``, or ``"skipped"`` for want of something before it.
        text: what was found.
        advice: what to do about it; empty where there is nothing to do.
    """

    check: str
    status: str
    text: str
    advice: str = ""


class Subject:
    """A config under examination.

    Args:
        config: what ``load_config`` returned.
        max_frames: frames of each split to look into, evenly spread.
    """

    def __init__(self, config: Config, max_frames: int) -> None:
        self.config = config
        self.max_frames = max_frames
        self.samples: list[Sample] = []  # what the pipeline made, for the model

    @cached_property
    def grid(self) -> Grid:
        """The config's grid."""
        return Grid.build(self.config.grid)

    @cached_property
    def splits(self) -> dict[str, Mapping[str, Any]]:
        """Config of the data set of each split, without what is wrapped around it."""
        loaders = {name: self.config.get(f"{name}_dataloader") for name in ("train", "test")}
        return {name: _innermost(loader.dataset) for name, loader in loaders.items() if loader}

    @cached_property
    def indexes(self) -> dict[str, Sequence[Frame]]:
        """All frames of each split."""
        return {name: open_index(dataset) for name, dataset in self.splits.items()}

    @cached_property
    def frames(self) -> list[Frame]:
        """Frames of the training split, evenly spread."""
        frames = self.indexes["train"]
        return [frames[row] for row in self.chosen_rows(len(frames))]

    def chosen_rows(self, count: int) -> list[int]:
        """Return evenly spread positions in ``count`` frames."""
        return np.unique(np.linspace(0, count - 1, min(count, self.max_frames)).round().astype(int)).tolist()

    @cached_property
    def dataset(self) -> Dataset:
        """The training data set."""
        return DATASETS.build(self.config.train_dataloader.dataset)

    def annotations(self) -> Iterator[tuple[Frame, np.ndarray, np.ndarray]]:
        """Yield frames with their boxes ``[N, 9]`` of a class and these classes ``[N]``."""
        class_names = list(self.config.class_names)
        for frame in self.frames:
            if frame.annotations is None:
                continue
            names = [CATEGORY_TO_CLASS.get(category, category) for category in frame.annotations.categories]
            labels = np.array([class_names.index(name) if name in class_names else -1 for name in names], dtype=int)
            yield frame, frame.annotations.boxes, labels


def open_index(dataset: Mapping[str, Any]) -> Sequence[Frame]:
    """Return the frames of a data set's config."""
    root = Path(dataset["data_root"])
    return open_frames(root, root / dataset["index"])


def _innermost(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset
