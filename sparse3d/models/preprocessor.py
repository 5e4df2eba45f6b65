"""Preprocessor: a list of samples -> what the network reads, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Grid, Sample, Voxels
from sparse3d_ops import voxelize


@MODELS.register_module()
class Preprocessor(BaseDataPreprocessor):
    """Make a batch of samples: concatenate points and sort them into the grid, normalise, pad and stack images.

    Args:
        grid: the config's grid, for detectors with points.
        num_features: columns of the samples' points, ``x, y, z`` first; None where the detector reads no points.
        keep_outside_z: put points above or below the range into the nearest layer instead of dropping them, as DSVT's
            pillar encoder for nuScenes does.
        images: arguments of ``ImageNormalizer``; None where the detector reads no images.

    Raises:
        ValueError: if it is told to read nothing, or points without a grid.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any] | None = None,
        num_features: int | None = None,
        keep_outside_z: bool = False,
        images: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if (grid is None) != (num_features is None) or (num_features is None and images is None):
            raise ValueError("Preprocessor: give grid and num_features for points, images for images, or all of them")
        self.grid = None if grid is None else Grid.build(grid)
        self.num_features = num_features
        self.keep_outside_z = keep_outside_z
        self.normalizer = None if images is None else ImageNormalizer(**images)

    def forward(self, data: Sequence[Sample], training: bool = False) -> dict[str, Any]:
        """Return ``dict(batch=Batch, samples=list[Sample])`` for a list of samples; clouds may be empty.

        Raises:
            ValueError: if there is no sample, or what one holds is missing or of another shape or dtype.
        """
        if not data:
            raise ValueError("Preprocessor: the batch holds no sample")
        for number, sample in enumerate(data):
            self._check(number, sample)
        samples = [self.cast_data(sample) for sample in data]
        fields = {**self._points(samples), **self._images(samples)}
        return dict(batch=Batch(batch_size=len(samples), **fields), samples=samples)

    def _points(self, samples: Sequence[Sample]) -> dict[str, Any]:
        if self.grid is None:
            return {}
        counts = torch.tensor([len(sample.points) for sample in samples], device=self.device)
        points = torch.cat([sample.points for sample in samples])
        batch_index = torch.repeat_interleave(counts)
        return dict(
            points=points, batch_index=batch_index, voxels=self._voxelize(self.grid, points, batch_index, len(samples))
        )

    def _voxelize(self, grid: Grid, points: Tensor, batch_index: Tensor, batch_size: int) -> Voxels:
        """Sort points into voxels; points outside the grid are left out."""
        found = voxelize(
            points, batch_index, grid.point_range, grid.voxel_size, batch_size, keep_outside_z=self.keep_outside_z
        )
        inside = found.point_to_voxel >= 0
        return Voxels(found.coords, points[inside], found.point_to_voxel[inside], batch_size)

    def _images(self, samples: Sequence[Sample]) -> dict[str, Any]:
        if self.normalizer is None:
            return {}
        images = self.normalizer([list(sample.images) for sample in samples])
        return dict(images=images, cameras=tuple(sample.cameras.to(self.device) for sample in samples))

    def _check(self, number: int, sample: Sample) -> None:
        wanted = [name for name, used in (("points", self.grid), ("images", self.normalizer)) if used is not None]
        missing = [name for name in wanted if name not in sample]
        if missing:
            raise ValueError(f"sample {number} of the batch has no {missing[0]!r}; it has {sorted(sample.keys())}")
        if self.grid is not None:
            points = sample.points
            shape = list(points.shape)
            if points.dtype != torch.float32 or len(shape) != 2 or shape[1] != self.num_features:
                raise ValueError(
                    f"points of sample {number}: expected [P, {self.num_features}] float32, got {shape} {points.dtype}"
                )


class ImageNormalizer(nn.Module):
    """Make one tensor of the images of a batch: (value - mean) / std, then zeros to the right and below.

    Args:
        mean: of each channel, 0 to 255, in the order of the network's channels.
        std: likewise.
        bgr: the network reads blue, green, red; images are loaded as red, green, blue.
        size_divisor: height and width are padded to multiples of it.
        min_size: ``(height, width)`` that all are padded to at least, where augmentation makes some smaller.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        bgr: bool = False,
        size_divisor: int = 32,
        min_size: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or size_divisor < 1:
            raise ValueError("images: mean and std have three numbers, std and size_divisor are positive")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.bgr = bgr
        self.size_divisor = size_divisor
        self.min_size = tuple(min_size)

    def forward(self, images: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return ``[B, C, 3, H, W]`` float32 for C images ``[3, h, w]`` of each of B samples; sizes may differ.

        Raises:
            ValueError: if an image has another shape, or samples have different numbers of images.
        """
        counts = sorted({len(own) for own in images})
        if len(counts) != 1:
            raise ValueError(f"images: all samples of a batch need the same number of cameras, got {counts}")
        shapes = {tuple(image.shape) for own in images for image in own}
        if any(len(shape) != 3 or shape[0] != 3 for shape in shapes):
            raise ValueError(f"images: expected [3, H, W], got {sorted(shapes)}")
        height, width = (
            -(-max(least, *sides) // self.size_divisor) * self.size_divisor
            for least, sides in zip(self.min_size, list(zip(*shapes, strict=True))[1:], strict=True)
        )
        stacked = self.mean.new_zeros(len(images), counts[0], 3, height, width)
        for sample, own in enumerate(images):
            for camera, image in enumerate(own):
                channels = image.flip(0) if self.bgr else image
                stacked[sample, camera, :, : image.shape[1], : image.shape[2]] = (channels - self.mean) / self.std
        return stacked
