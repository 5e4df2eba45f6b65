"""Which cells of the bird's-eye map each camera sees, and where in its image.

A cell is a point in space: its middle, as high as its points lie on average (lowest and highest). Only occupied cells
are seen. The cells of a camera are its row of a table, padded to one length L of at least 1; row r of a table of all
cells is cell r of the B maps, one after the other.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Grid

from .camera_geometry import CameraGeometry
from .cell_heights import CellHeights, cell_middles


def cell_points(heights: CellHeights, grid: Grid) -> Tensor:
    """Return the cells as points ``[B, Y X, 3]`` in metres, at a height of NaN where they are empty."""
    height = heights.middle.where(heights.occupied, torch.nan)
    middles = cell_middles(height.shape[1:], height.device)
    lower, size = (middles.new_tensor(values[:2]) for values in (grid.lower, grid.cell_size))
    ground = (middles * size + lower).expand(len(height), -1, -1)
    return torch.cat([ground, height.flatten(1)[..., None]], dim=-1)


@dataclass(frozen=True)
class SeenCells:
    """What N cameras in each of B samples see of P cells: a look is a cell in a camera.

    Args:
        rows: ``[B N, L]`` int64, cell of each look, 0 where there is none.
        filled: ``[B N, L]`` bool, whether there is one.
        references: ``[B N, L, 2]`` ``(u, v)`` in parts of the padded image.
        depths: ``[B N, L, 1]`` metres.
        cells: ``[M]`` int64, the cells that any camera sees.
        looks: ``[M, N]`` int64, looks at each of them, numbered through the table; where a camera does not see the
            cell, that of one that does.
    """

    rows: Tensor
    filled: Tensor
    references: Tensor
    depths: Tensor
    cells: Tensor
    looks: Tensor

    @classmethod
    def find(
        cls,
        points: Tensor,  # [B, P, 3]
        cameras: CameraGeometry,
    ) -> SeenCells:
        """Return what the cameras see of points, of which those with NaN are not seen."""
        pixels, depths = cameras.project(points)
        visible = cameras.inside(pixels, depths)  # [B, N, P]
        sample, camera, point = visible.nonzero().unbind(1)
        group = sample * visible.shape[1] + camera
        counts = visible.flatten(0, 1).sum(dim=1)
        slot = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
        length = max(int(counts.max()), 1)

        def pad(values: Tensor, fill: float) -> Tensor:
            padded = values.new_full((len(counts), length, *values.shape[1:]), fill)
            return padded.index_put((group, slot), values)

        size = pixels.new_tensor(cameras.image_size[::-1])
        cells, looks = _looks_of_cells(visible, group * length + slot)
        return cls(
            rows=pad(sample * points.shape[1] + point, 0),
            filled=pad(torch.ones_like(point, dtype=torch.bool), False),
            references=pad(pixels[sample, camera, point] / size, 0.5),
            depths=pad(depths[sample, camera, point][:, None], 1.0),
            cells=cells,
            looks=looks,
        )

    def gather(self, cells: Tensor) -> Tensor:
        """Return the rows ``[B N, L, C]`` of features of all cells ``[B, P, C]``."""
        return cells.flatten(0, 1)[self.rows]

    def bias(self) -> Tensor:
        """Return ``[B N, 1, L]``: -inf hides padding, except from a camera that sees nothing else."""
        hidden = ~self.filled & self.filled.any(dim=1, keepdim=True)
        return torch.zeros_like(self.references[..., 0]).masked_fill(hidden, -torch.inf)[:, None]

    def merge(
        self,
        looked: Tensor,  # [B N, L, C]
        cells: Tensor,  # [B, P, C]
    ) -> Tensor:  # [B, P, C]
        """Return ``cells`` where no camera looked, else the maximum over cameras."""
        best = looked.flatten(0, 1)[self.looks].amax(dim=1)
        return cells.flatten(0, 1).index_put((self.cells,), best).view_as(cells)

    def by_any(self, cells: Tensor) -> Tensor:
        """Return ``[B, P, 1]`` in the dtype of ``cells`` ``[B, P, C]``: 1 where a camera sees the cell, else 0."""
        mask = torch.zeros_like(cells[..., :1]).flatten(0, 1)
        return mask.index_put((self.cells,), mask.new_ones(1, 1)).view_as(cells[..., :1])


def _looks_of_cells(
    visible: Tensor,  # [B, N, P]
    numbers: Tensor,  # [all looks]
) -> tuple[Tensor, Tensor]:
    """Return the cells that any camera sees and the numbers of the looks at them; see ``SeenCells``."""
    table = torch.zeros_like(visible, dtype=torch.int64).masked_scatter(visible, numbers)
    cells = visible.any(dim=1).flatten().nonzero()[:, 0]
    own, there = (each.transpose(1, 2).flatten(0, 1)[cells] for each in (table, visible))
    first = there.int().argmax(dim=1, keepdim=True)
    return cells, own.where(there, own.gather(1, first))
