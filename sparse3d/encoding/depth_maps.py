"""Sparse depth maps: what a LiDAR scan says about the pixels of the cameras.

    channel 0   (d - 14.41) / sqrt(156.89) of the nearest point in a cell, 0 where there is none; d in metres
    channel 1   1 where there is a point

A point counts where it lies in the image, less than a pixel's width from no edge.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.4; the constants are nuScenes' mean and variance of depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .camera_geometry import CameraGeometry

DEPTH_MEAN, DEPTH_VARIANCE = 14.41, 156.89  # metres, square metres
FINEST_STRIDE = 4  # pixels of the image in a pixel of the finest image map, and of the depth maps that it is told


def draw_depth_maps(
    points: Tensor,  # [P, 3]
    batch_index: Tensor,  # [P]
    cameras: CameraGeometry,
    stride: int,
) -> Tensor:  # [B, N, 2, H, W]
    """Return the depth maps of N cameras in each of B samples, in cells of ``stride`` pixels.

    Args:
        points: ``(x, y, z)`` in metres, LiDAR frame, of all samples.
        batch_index: int64, sample of each point.
        cameras: of the B samples.
        stride: pixels of a cell's side.
    """
    batch_size, num_cameras = cameras.sizes.shape[:2]
    height, width = (side // stride for side in cameras.image_size)
    nearest = points.new_full((batch_size * num_cameras * height * width,), torch.inf)
    for sample in range(batch_size):
        own = points[batch_index == sample]
        pixels, depths = cameras[sample : sample + 1].project(own[None])
        last = cameras.sizes[sample].flip(-1)[:, None] - 1
        view, row = (((pixels[0] > 0) & (pixels[0] < last)).all(dim=-1) & (depths[0] > 0)).nonzero().unbind(1)
        x, y = (pixels[0, view, row] / stride).long().unbind(1)
        cell = ((sample * num_cameras + view) * height + y) * width + x
        nearest = nearest.scatter_reduce(0, cell, depths[0, view, row], "amin")
    hit = nearest.isfinite()
    depth = torch.where(hit, (nearest - DEPTH_MEAN) / DEPTH_VARIANCE**0.5, 0)
    maps = torch.stack([depth, hit.to(depth.dtype)], dim=-1)
    return maps.view(batch_size, num_cameras, height, width, 2).movedim(-1, 2)
