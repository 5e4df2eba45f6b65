"""Choosing points and boxes: what lies in the grid, and in which order points come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...registry import TRANSFORMS
from ...structures import Grid, InstanceData, Sample
from .. import point_kernels


@TRANSFORMS.register_module()
class RangeFilter:
    """Keep the points in the grid's range, and the ground truth whose centre is in it (upper bound excluded).

    Args:
        grid: a ``Grid``, or the dict of its arguments (``"$grid"`` in a config).
        points: False leaves the points alone, for detectors that look further with their cameras; their voxels leave
            out what lies outside anyway.
    """

    def __init__(self, grid: Grid | Mapping[str, Any], points: bool = True) -> None:
        self.grid = Grid.build(grid)
        self.points = points

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with fewer ``points`` and a smaller ``gt``, where it has them."""
        fields: dict[str, Any] = {}
        if self.points and "points" in sample:
            points = sample.points.numpy()
            low, high = np.split(np.array(self.grid.point_range, dtype=points.dtype), 2)
            fields["points"] = torch.from_numpy(point_kernels.keep_in_range(points, low, high))
        if "gt" in sample:
            fields["gt"] = select_instances(sample.gt, sample.gt.boxes.in_range(self.grid.point_range))
        return sample.replace(**fields)


@TRANSFORMS.register_module()
class ShufflePoints:
    """Bring the points into a random order."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with its ``points`` shuffled."""
        order = rng.permutation(len(sample.points))
        return sample.replace(points=torch.from_numpy(sample.points.numpy().take(order, axis=0)))


def select_instances(instances: InstanceData, mask: torch.Tensor) -> InstanceData:
    """Return the instances where ``mask`` ``[N]`` is true; every field must be a tensor or ``Boxes3D``."""
    return InstanceData(**{name: values[mask] for name, values in instances.items()})
