"""Ring and ray matrices: which bird's-eye cells lie at a depth, and which in the direction of an image column.

    point     p = inverse(lidar2img) (u d, v d, d, 1)      u of the column, d of the depth bin, v of the middle row
    ring      [D, Y X]      1 where any column reaches the cell at this depth
    ray       [N W, Y X]    1 where the column reaches the cell at any depth; columns camera after camera

Columns lie evenly from the first pixel of the image to the last, u = 0 to width - 1, rows likewise; a bin stands for
its lower edge. The published code averages cell coordinates over all rows of features. They are affine in v, so that is
the middle row.

The published model also rounds coordinates toward zero, so that what lies up to one cell before the map's lower borders
counts as on it; and it collects whatever lies outside of the map in one cell, the one of index (Y / 2, X / 2), which it
then empties. Its weights are used to both.

Source: MatrixVT (Zhou et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Cameras, Grid

CELLS = ("published", "exact")


@dataclass(frozen=True)
class RingRay:
    """The two factors of the feature transporting matrix of one rig, binary, float32.

    Args:
        ring: ``[D, Y X]``.
        ray: ``[N W, Y X]``.
    """

    ring: Tensor
    ray: Tensor

    @classmethod
    def build(
        cls,
        cameras: Cameras,
        image_size: tuple[int, int],
        num_columns: int,
        depths: Tensor,  # [D]
        grid: Grid,
        cells: str = "published",
    ) -> RingRay:
        """Build the matrices of a rig of N cameras.

        Args:
            cameras: the rig; a camera that sees nothing (``lidar2cam`` of zeros) reaches no cell.
            image_size: ``(height, width)`` of the network's input.
            num_columns: W, width of the features.
            depths: lower edges of the depth bins, metres.
            grid: the grid of the map.
            cells: ``"published"`` or ``"exact"``, which rounds down and empties no cell.
        """
        points = cameras.unproject(column_pixels(image_size, num_columns), depths)  # [N, W, D, 3]
        return cls.from_cells(cell_coordinates(points, grid), grid.out_shape, cells)

    @classmethod
    def from_cells(
        cls,
        coordinates: Tensor,  # [N, W, D, 2 or more]
        shape: tuple[int, int],
        cells: str = "published",
    ) -> RingRay:
        """Build the matrices from cell coordinates ``(x, y)``; NaN reaches no cell."""
        height, width = shape
        published = cells == "published"
        x, y = (coordinates[..., :2].trunc() if published else coordinates[..., :2].floor()).unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        num_cameras, columns, bins = x.shape
        column = torch.arange(num_cameras * columns, device=x.device).view(num_cameras, columns, 1).expand_as(x)
        depth = torch.arange(bins, device=x.device).expand_as(x)
        cell = (y * width + x)[inside].long()
        ring = torch.zeros(bins, height * width, device=x.device)
        ray = torch.zeros(num_cameras * columns, height * width, device=x.device)
        ring[depth[inside], cell] = 1
        ray[column[inside], cell] = 1
        if published:
            lost = height // 2 * width + width // 2
            ring[:, lost] = 0
            ray[:, lost] = 0
        return cls(ring, ray)


def column_pixels(image_size: tuple[int, int], num_columns: int) -> Tensor:
    """Return where the feature columns look, in the middle row: ``[W, 2]`` float64 ``(u, v)``."""
    height, width = image_size
    u = torch.linspace(0, width - 1, num_columns, dtype=torch.float64)
    return torch.stack([u, torch.full_like(u, (height - 1) / 2)], dim=-1)


def cell_coordinates(points: Tensor, grid: Grid) -> Tensor:
    """Return coordinates ``[..., 3]`` of points ``[..., 3]`` in cells of the map and in layers; edges are whole."""
    size = points.new_tensor([*grid.cell_size, grid.voxel_size[2]])
    return (points - points.new_tensor(grid.lower)) / size
