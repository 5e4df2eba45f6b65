"""Depth maps: what the LiDAR measured, in the pixels of the images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...registry import TRANSFORMS
from ...structures import Sample


@TRANSFORMS.register_module()
class MakeDepthMaps:
    """Set ``depth_maps`` (float32 ``[C, H, W]``, or a list of ``[H, W]`` where sizes differ) from ``points``.

    A pixel holds the depth of the nearest point in it, in metres along the camera's axis, before any augmentation of
    the world; 0 where there is none. It comes after all movements of images and points.

    Raises:
        ValueError: if the sample has no points or no cameras.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``depth_maps``."""
        missing = [name for name in ("points", "cameras") if name not in sample]
        if missing:
            raise ValueError(f"MakeDepthMaps: the sample has no {' and no '.join(missing)}")
        pixels, depths = sample.cameras.project(sample.points[:, :3])
        sizes = sample.cameras.image_sizes.tolist()
        maps = [_depth_map(*each) for each in zip(pixels, depths, sizes, strict=True)]
        same_size = len({each.shape for each in maps}) == 1
        return sample.replace(depth_maps=torch.stack(maps) if same_size else maps)


def _depth_map(
    pixels: Tensor,  # [N, 2]
    depths: Tensor,  # [N]
    size: tuple[int, int],
) -> Tensor:  # [H, W]
    height, width = size
    u, v = pixels.floor().unbind(-1)  # NaN, behind the camera, is in no image
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    place = (v * width + u)[inside].long()
    empty = torch.full((height * width,), torch.inf, dtype=torch.float32)
    nearest = empty.scatter_reduce(0, place, depths[inside].float(), "amin")
    return torch.where(nearest.isinf(), 0.0, nearest).view(height, width)
