"""Preprocessor: a list of samples -> what the network reads, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Grid, Sample, Voxels
from sparse3d_ops import voxelize


@MODELS.register_module()
class Preprocessor(BaseDataPreprocessor):
    """Concatenate the samples' points and sort them into the grid.

    Args:
        grid: the config's grid.
        num_features: columns of the samples' points, ``x, y, z`` first.
        keep_outside_z: put points above or below the range into the nearest layer instead of dropping them, as DSVT's
            pillar encoder for nuScenes does.
    """

    def __init__(self, grid: Grid | Mapping[str, Any], num_features: int, keep_outside_z: bool = False) -> None:
        super().__init__()
        self.grid = Grid.build(grid)
        self.num_features = num_features
        self.keep_outside_z = keep_outside_z

    def forward(self, data: Sequence[Sample], training: bool = False) -> dict[str, Any]:
        """Return ``dict(batch=Batch, samples=list[Sample])`` for a list of samples; clouds may be empty.

        Raises:
            ValueError: if there is no sample, or a sample has no points or points of another shape or dtype.
        """
        if not data:
            raise ValueError("Preprocessor: the batch holds no sample")
        for number, sample in enumerate(data):
            self._check(number, sample)
        samples = [self.cast_data(sample) for sample in data]
        counts = torch.tensor([len(sample.points) for sample in samples], device=self.device)
        points = torch.cat([sample.points for sample in samples])
        batch_index = torch.repeat_interleave(counts)
        voxels = self._voxelize(points, batch_index, len(samples))
        batch = Batch(batch_size=len(samples), points=points, batch_index=batch_index, voxels=voxels)
        return dict(batch=batch, samples=samples)

    def _voxelize(self, points: Tensor, batch_index: Tensor, batch_size: int) -> Voxels:
        """Sort points into voxels; points outside the grid are left out."""
        grid = self.grid
        found = voxelize(
            points, batch_index, grid.point_range, grid.voxel_size, batch_size, keep_outside_z=self.keep_outside_z
        )
        inside = found.point_to_voxel >= 0
        return Voxels(found.coords, points[inside], found.point_to_voxel[inside], batch_size)

    def _check(self, number: int, sample: Sample) -> None:
        if "points" not in sample:
            raise ValueError(f"sample {number} of the batch has no 'points'; it has {sorted(sample.keys())}")
        points = sample.points
        shape = list(points.shape)
        if points.dtype != torch.float32 or len(shape) != 2 or shape[1] != self.num_features:
            raise ValueError(
                f"points of sample {number}: expected [P, {self.num_features}] float32, got {shape} {points.dtype}"
            )
