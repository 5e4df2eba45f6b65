"""Means: a voxel's feature is the mean of its points, as detectors with sparse convolutions have it.

Source: VoxelNet's successors, here CenterPoint (Yin et al., CVPR 2021).
"""

from __future__ import annotations

from torch import Tensor

from .segment import Segments, segment_mean


def mean_points(
    points: Tensor,  # [P, F]
    voxel: Tensor,  # [P]
    num_voxels: int,
    max_points: int | None = None,
) -> Tensor:  # [V, F]
    """Return the mean of each voxel's points.

    Args:
        points: ``[P, F]`` floating point, each in a voxel.
        voxel: ``[P]`` int64, voxel of each point.
        num_voxels: number of voxels V.
        max_points: only so many of a voxel's points count, the first ones; None for all of them.

    Returns:
        ``[V, F]``, zeros for a voxel without points.
    """
    segments = Segments.from_index(voxel, num_voxels)
    if max_points is not None and bool((segments.counts > max_points).any()):
        counted = segments.rank() < max_points
        points, segments = points[counted], Segments.from_index(voxel[counted], num_voxels)
    return segment_mean(points, segments)
