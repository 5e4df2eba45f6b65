"""What voxels see in images: features of maps at the pixels that positions fall on.

    (u d, v d, d) = lidar2img (x, y, z, 1)        pixel = trunc(scale * trunc(u, v))

The value is that of the map, brought to the size of the image by bilinear interpolation, at the pixel; positions that
no camera sees get zeros, and what several cameras see is added up.

Source: Focals Conv-F (Chen et al., CVPR 2022), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d_ops import Segments, segment_sum


@dataclass(frozen=True)
class PixelRule:
    """Which pixel a position falls on, and when it is seen; the defaults are those of the code released for KITTI.

    Args:
        scale: pixels of the network's image a pixel of the image that ``lidar2img`` maps to.
        min_depths: metres that a position has to exceed, one a camera; None to see what is behind a camera too.
        skip_first: pixels of the first row and column see nothing.
    """

    scale: float = 1.0
    min_depths: Sequence[float] | None = None
    skip_first: bool = False

    def find(
        self,
        positions: Tensor,  # [N, 3]
        lidar2img: Tensor,  # [4, 4]
        camera: int,
        image_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Return the rows ``[P]`` of positions that a camera sees, and their pixels ``[P, 2]`` ``(u, v)`` int64.

        Args:
            positions: ``[N, 3]`` in metres.
            lidar2img: ``[4, 4]`` of the camera.
            camera: number of the camera.
            image_size: ``(height, width)`` of the network's image.
        """
        projected = positions @ lidar2img[:3, :3].T + lidar2img[:3, 3]
        depth = projected[:, 2]
        pixels = ((projected[:, :2] / depth[:, None]).trunc() * self.scale).trunc()
        height, width = image_size
        seen = ((pixels >= int(self.skip_first)) & (pixels < pixels.new_tensor([width, height]))).all(dim=1)
        if self.min_depths is not None:
            seen &= depth > self.min_depths[camera]
        rows = seen.nonzero()[:, 0]
        return rows, pixels[rows].long()


def sample_images(
    maps: Tensor,  # [B, M, C, h, w]
    lidar2img: Tensor,  # [B, M, 4, 4]
    image_size: tuple[int, int],
    positions: Tensor,  # [N, 3]
    sample: Tensor,  # [N]
    rule: PixelRule,
) -> Tensor:
    """Return the image features of positions ``[N, C]``.

    Args:
        maps: ``[B, M, C, h, w]``, one of each of M cameras.
        lidar2img: ``[B, M, 4, 4]``, positions ``(x, y, z, 1)`` -> ``(u * depth, v * depth, depth, 1)``.
        image_size: ``(height, width)`` of the network's images.
        positions: ``[N, 3]`` in metres.
        sample: ``[N]`` integer, sample of each position.
        rule: which pixel a position falls on.
    """
    rows, values = [sample.new_zeros(0, dtype=torch.int64)], [maps.new_zeros(0, maps.shape[2])]
    for number, (own_maps, matrices) in enumerate(zip(maps, lidar2img, strict=True)):
        own = (sample == number).nonzero()[:, 0]
        for camera, (view, matrix) in enumerate(zip(own_maps, matrices, strict=True)):
            seen, pixels = rule.find(positions[own], matrix.to(positions), camera, image_size)
            rows.append(own[seen])
            values.append(read_pixels(view, pixels, image_size))
    return segment_sum(torch.cat(values), Segments.from_index(torch.cat(rows), len(positions)))


def read_pixels(
    view: Tensor,  # [C, h, w]
    pixels: Tensor,  # [P, 2]
    image_size: tuple[int, int],
) -> Tensor:
    """Return a map's values ``[P, C]`` at pixels ``(u, v)`` of an image, as if it had been interpolated to its size."""
    height, width = image_size
    places = (2 * pixels + 1) / pixels.new_tensor([width, height]) - 1  # the image spans -1 to 1
    grid = places.to(view.dtype)[None, None]
    return F.grid_sample(view[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T
