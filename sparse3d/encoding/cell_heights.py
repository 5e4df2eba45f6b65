"""Where the cells of a bird's-eye map lie, and how low and how high the points in them.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.4: cells become 3D points that cameras can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Grid, Voxels
from sparse3d_ops import Segments, bev_cells


@dataclass(frozen=True)
class CellHeights:
    """Where in height the points of each cell lie; all numbers are finite, as every activation's have to be.

    Args:
        middle: ``[B, Y, X]`` metres, the middle between the lowest and the highest point; 0 where there is no point.
        occupied: ``[B, Y, X]`` bool, the cell has a point.
    """

    middle: Tensor
    occupied: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> CellHeights:
        """Return the heights of cells whose points reach from ``low`` to ``high``; those with low > high are empty."""
        occupied = low <= high
        return cls(((low + high) / 2).where(occupied, 0), occupied)


def cell_heights(
    voxels: Voxels,
    grid: Grid,
    max_points: int | None = None,
) -> tuple[Tensor, Tensor]:  # [B, Y, X] twice
    """Return the z of the lowest and of the highest point of each cell of the grid's output, in metres.

    Args:
        voxels: points in voxels of the grid.
        grid: its ``stride`` makes cells of voxels.
        max_points: only the first points of a voxel count; None for all.

    Returns:
        float32; a cell without points has inf and -inf.
    """
    points, index = voxels.points, voxels.point_to_voxel
    if max_points is not None:
        counted = Segments.from_index(index, len(voxels.coords)).rank() < max_points
        points, index = points[counted], index[counted]
    height, width = grid.out_shape
    coords = voxels.coords.clone()
    coords[:, 2:] //= grid.stride
    cells = bev_cells(coords, (height, width))[index]
    shape = (voxels.batch_size, height, width)
    bounds = [
        points.new_full((voxels.batch_size * height * width,), start).scatter_reduce(0, cells, points[:, 2], reduce)
        for start, reduce in ((torch.inf, "amin"), (-torch.inf, "amax"))
    ]
    return bounds[0].view(shape), bounds[1].view(shape)


def cell_middles(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the middles ``(x, y)`` of the cells of a map ``(Y, X)`` as ``[Y X, 2]`` float32, in cells, row by row."""
    y, x = (torch.arange(size, device=device) + 0.5 for size in shape)
    return torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1).flatten(0, 1)
