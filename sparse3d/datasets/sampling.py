"""Which frame is drawn when: draws that carry their epoch, and class-balanced resampling.

A sampler hands the data set a `Draw`: the item, the epoch and the sampler's seed. All randomness of a sample is a
function of it, whichever worker loads it and however often the run was resumed.

Class-balanced grouping and sampling (CBGS) draws for each of C classes, with replacement,

    floor(n_c * (1 / C) / (n_c / sum n))  frames,     n_c = number of frames that show class c,

so every class gets about the same share of the draws (Zhu et al., "Class-balanced Grouping and Sampling for Point Cloud
3D Object Detection", arXiv 1908.09492, section 3.1). A class that no frame shows gets none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from mmengine.dataset import DefaultSampler as _DefaultSampler
from mmengine.dataset import InfiniteSampler as _InfiniteSampler

from ..registry import DATA_SAMPLERS
from ..structures import Frame
from .index import FrameIndex, ObjectColumns
from .nuscenes_schema import CATEGORY_TO_CLASS


class Draw(int):
    """What a sampler asks a data set for: an index that knows its epoch and the sampler's seed.

    To a data set that does not care it is the index; ``dataset[3]`` means epoch 0.
    """

    epoch: int
    seed: int

    def __new__(cls, item: int, epoch: int = 0, seed: int = 0) -> Draw:
        """Make a draw of an item."""
        draw = super().__new__(cls, item)
        draw.epoch, draw.seed = epoch, seed
        return draw

    def __getnewargs__(self) -> tuple[int, int, int]:
        """Return what a copy in another process is made of."""
        return int(self), self.epoch, self.seed

    def other(self, item: int) -> Draw:
        """Return the draw of another item in the same epoch."""
        return Draw(item, self.epoch, self.seed)


@DATA_SAMPLERS.register_module()
class DefaultSampler(_DefaultSampler):
    """mmengine's ``DefaultSampler``, under its name, whose indices are ``Draw``s of the current epoch.

    ``skip`` draws of the next epoch are left out: a resumed run has seen them.
    """

    skip = 0

    def __iter__(self) -> Iterator[Draw]:
        """Yield the draws of this process in this epoch."""
        skip, self.skip = self.skip, 0
        return (Draw(item, self.epoch, self.seed) for item in islice(super().__iter__(), skip, None))


@DATA_SAMPLERS.register_module()
class InfiniteSampler(_InfiniteSampler):
    """mmengine's ``InfiniteSampler``, under its name, whose indices are ``Draw``s; a pass over the data is an epoch.

    ``skip`` draws at the beginning are left out: a resumed run has seen them.
    """

    skip = 0

    def __iter__(self) -> Iterator[Draw]:
        """Yield draws without end."""
        for place, item in enumerate(islice(self._indices_of_rank(), self.skip, None), self.skip):
            yield Draw(item, (place * self.world_size + self.rank) // self.size, self.seed)


def class_balanced_rows(shows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw frames so that all classes are shown about equally often.

    Args:
        shows: ``[F, C]`` bool, whether a frame shows a class.
        rng: decides which frames are drawn.

    Returns:
        Rows of ``shows`` ``[D]`` int64, with repetitions, class after class.

    Raises:
        ValueError: if no frame shows any class.
    """
    frames_of = shows.sum(axis=0)
    total = frames_of.sum()
    if total == 0:
        raise ValueError("class-balanced sampling: no frame shows any of the classes")
    drawn = []
    for label in np.flatnonzero(frames_of):
        ratio = 1 / len(frames_of) / (frames_of[label] / total)
        drawn.append(rng.choice(np.flatnonzero(shows[:, label]), int(frames_of[label] * ratio)))
    return np.concatenate(drawn).astype(np.int64)


def shown_classes(frames: Sequence[Frame], class_names: Sequence[str], min_points: int) -> np.ndarray:
    """Return ``[F, C]`` bool: whether a frame has an annotated object of a class with at least so many LiDAR points."""
    objects = frames.objects() if isinstance(frames, FrameIndex) else ObjectColumns.of(frames)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of.get(CATEGORY_TO_CLASS.get(name, name), -1) for name in objects.categories], dtype=int)
    of_object = labels[objects.codes]
    wanted = (of_object >= 0) & (objects.num_lidar_points >= min_points)
    shows = np.zeros((len(frames), len(class_names)), dtype=bool)
    shows[objects.frames[wanted], of_object[wanted]] = True
    return shows
