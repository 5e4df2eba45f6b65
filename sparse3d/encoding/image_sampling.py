"""What voxels see in images: features of maps at the pixels that positions fall on.

    (u d, v d, d) = lidar2img (x, y, z, 1)        pixel = trunc(scale * trunc(u, v))

The value is that of the map, brought to the size of the image by bilinear interpolation, at the pixel; positions that
no camera sees get zeros, and what several cameras see is added up.

Source: Focals Conv-F (Chen et al., CVPR 2022), section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.structures import Cameras, Grid
from sparse3d_ops import Segments, segment_sum
from sparse3d_ops.sparse import Sites

from .voxel_positions import voxel_positions


@dataclass(frozen=True)
class PixelRule:
    """Which pixel a position falls on, and when it is seen; the defaults are those of the code released for KITTI.

    Args:
        scale: pixels of the network's image a pixel of the image that ``lidar2img`` maps to.
        min_depths: metres that a position has to exceed, by the name of the camera, 0 for one without an entry; None
            to see what is behind a camera too.
        skip_first: pixels of the first row and column see nothing.
    """

    scale: float = 1.0
    min_depths: Mapping[str, float] | None = None
    skip_first: bool = False

    def find(
        self,
        positions: Tensor,  # [N, 3]
        lidar2img: Tensor,  # [4, 4]
        camera: str,
        image_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Return the rows ``[P]`` of positions that a camera sees, and their pixels ``[P, 2]`` ``(u, v)`` int64.

        Args:
            positions: ``[N, 3]`` in metres.
            lidar2img: ``[4, 4]`` of the camera.
            camera: name of the camera.
            image_size: ``(height, width)`` of the network's image.
        """
        projected = positions @ lidar2img[:3, :3].T + lidar2img[:3, 3]
        depth = projected[:, 2]
        pixels = ((projected[:, :2] / depth[:, None]).trunc() * self.scale).trunc()
        height, width = image_size
        seen = ((pixels >= int(self.skip_first)) & (pixels < pixels.new_tensor([width, height]))).all(dim=1)
        if self.min_depths is not None:
            seen &= depth > self.min_depths.get(camera, 0.0)
        rows = seen.nonzero()[:, 0]
        return rows, pixels[rows].long()


@dataclass(frozen=True)
class ImageView:
    """What voxels see in the images of a batch.

    Args:
        maps: ``[B, M, C, h, w]``, one of each of M cameras.
        cameras: of each sample.
        image_size: ``(height, width)`` of the images.
        grid: whose voxels look.
        rule: which pixel a voxel falls on. With a ``scale``, that is found in the image as recorded.
    """

    maps: Tensor
    cameras: Sequence[Cameras]
    image_size: tuple[int, int]
    grid: Grid
    rule: PixelRule

    def __call__(self, sites: Sites) -> Tensor:
        """Return the image features ``[N, C]`` of voxels of stride 1."""
        rigs = self.cameras
        if self.rule.scale != 1:
            rigs = tuple(
                replace(rig, image_aug=torch.eye(4).to(rig.image_aug).expand_as(rig.image_aug)) for rig in rigs
            )
        return sample_images(
            self.maps,
            [rig.lidar2img for rig in rigs],
            [rig.names for rig in rigs],
            self.image_size,
            voxel_positions(sites, self.grid, 1),
            sites.indices[:, 0],
            self.rule,
        )


def sample_images(
    maps: Tensor,  # [B, M, C, h, w]
    lidar2img: Sequence[Tensor],  # B times [M, 4, 4]
    names: Sequence[Sequence[str]],  # B times M
    image_size: tuple[int, int],
    positions: Tensor,  # [N, 3]
    sample: Tensor,  # [N]
    rule: PixelRule,
) -> Tensor:
    """Return the image features of positions ``[N, C]``.

    Args:
        maps: ``[B, M, C, h, w]``, one of each of M cameras.
        lidar2img: ``[M, 4, 4]`` of each sample, positions ``(x, y, z, 1)`` -> ``(u * depth, v * depth, depth, 1)``.
        names: of the cameras of each sample.
        image_size: ``(height, width)`` of the network's images.
        positions: ``[N, 3]`` in metres.
        sample: ``[N]`` integer, sample of each position.
        rule: which pixel a position falls on.
    """
    rows, values = [sample.new_zeros(0, dtype=torch.int64)], [maps.new_zeros(0, maps.shape[2])]
    for number, rig in enumerate(zip(maps, lidar2img, names, strict=True)):
        own = (sample == number).nonzero()[:, 0]
        for view, matrix, camera in zip(*rig, strict=True):
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
