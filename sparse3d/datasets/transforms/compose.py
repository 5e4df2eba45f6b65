"""Transforms one after the other.

Neighbouring movements of the world become one, and so do those of the images: data are touched once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from ...registry import TRANSFORMS
from ...structures import Sample
from .geometry import WorldMove, WorldMoves
from .images import ImageMove, ImageMoves

Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]


@TRANSFORMS.register_module()
class Compose:
    """Apply transforms in their order.

    Args:
        transforms: callables ``(sample, rng) -> sample``, or the dicts of registered ones.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any] | Transform]) -> None:
        self.transforms = build_pipeline(transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample after the last transform."""
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


@TRANSFORMS.register_module()
class UntilEpoch(Compose):
    """Apply transforms in the first epochs only, so that the last ones train on data as it is ("fade-out").

    The epoch comes with the sample (``Sample.epoch``), so persistent workers and resumed runs need no hook.

    Args:
        epoch: number of epochs, from the start of the training, in which the transforms are applied.
        transforms: callables ``(sample, rng) -> sample``, or the dicts of registered ones.
    """

    def __init__(self, epoch: int, transforms: Sequence[Mapping[str, Any] | Transform]) -> None:
        super().__init__(transforms)
        self.epoch = epoch

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample after the transforms, or as it is."""
        return super().__call__(sample, rng) if sample.epoch < self.epoch else sample


def build_pipeline(transforms: Sequence[Mapping[str, Any] | Transform]) -> list[Transform]:
    """Build transforms, and let each run of movements be one; it draws what its members would have drawn.

    Raises:
        TypeError: if one is neither a callable nor a dict.
    """
    built = [build_transform(transform) for transform in transforms]
    pipeline: list[Transform] = []
    for combined, run in groupby(built, _combined):
        members = list(run)
        pipeline += [combined(members)] if combined and len(members) > 1 else members
    return pipeline


def _combined(transform: Transform) -> type[WorldMoves] | type[ImageMoves] | None:
    """Return what several transforms of this kind become."""
    if isinstance(transform, WorldMove):
        return WorldMoves
    return ImageMoves if isinstance(transform, ImageMove) else None


def build_transform(transform: Mapping[str, Any] | Transform) -> Transform:
    """Return ``transform`` itself, or build it from its dict.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(transform, Mapping):
        return TRANSFORMS.build(dict(transform))
    if not callable(transform):
        raise TypeError(f"a transform must be a callable or a dict with its type, got {transform!r}")
    return transform
