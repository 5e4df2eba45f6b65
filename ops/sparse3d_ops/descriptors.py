"""Descriptors: what a dynamic voxel encoder is told about a point.

For a point p in voxel v, F + 6 (+ 1) numbers in this order, in metres:

    all F features of the point,   xyz - mean of v's points,   xyz - centre of v,   (|xyz|)

Source: DSVT (Wang et al., CVPR 2023), after the dynamic voxelization of MVF (Zhou et al., CoRL 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._checks import check_columns
from .segment import Segments, segment_mean

NUM_OFFSETS = 6  # to the mean of the voxel's points, and to its centre


def describe_points(
    points: Tensor,  # [P, F]
    coords: Tensor,  # [V, 4]
    segments: Segments,
    lower: Sequence[float],
    voxel_size: Sequence[float],
    *,
    with_distance: bool = False,
    scales: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Describe points by themselves and their place in their voxel.

    Args:
        points: ``[P, F >= 3]`` float32, columns ``x, y, z, ...``, each in a voxel.
        coords: ``[V, 4]`` int32 ``(batch, z, y, x)`` of the voxels.
        segments: the points grouped by voxel.
        lower: lower corner ``(x, y, z)`` of the grid in metres.
        voxel_size: ``(x, y, z)`` in metres.
        with_distance: append the distance to the sensor.
        scales: what each number is divided by, or None.

    Returns:
        ``[P, F + 6 (+ 1)]`` float32.

    Raises:
        ValueError: if the points are no floating-point matrix of three or more columns.
    """
    check_columns("points", points, 3)
    points = points.float()
    xyz = points[:, :3].contiguous()
    anchors = torch.cat([segment_mean(xyz, segments), voxel_centers(coords, lower, voxel_size)], dim=1)
    parts = [points, xyz.repeat(1, 2) - anchors[segments.index]]
    if with_distance:
        parts.append(xyz.norm(dim=1, keepdim=True))
    described = torch.cat(parts, dim=1)
    return described if scales is None else described / torch.as_tensor(scales).to(described)


def voxel_centers(
    coords: Tensor,  # [V, 4]
    lower: Sequence[float],
    voxel_size: Sequence[float],
) -> Tensor:
    """Return the voxels' centres ``[V, 3]`` float32 ``(x, y, z)`` in metres."""
    size, corner = (torch.tensor([float(x) for x in each], device=coords.device) for each in (voxel_size, lower))
    return coords[:, [3, 2, 1]] * size + (size / 2 + corner)
