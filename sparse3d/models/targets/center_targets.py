"""CenterPoint's training targets: Gaussian heat maps and the regression codes of the centre cells.

    c = clamp((xy - lower) / voxel size / stride, 0, size - 0.5)      cell = trunc(c)
    codes: center = c - cell,  center_z = z,  dim = log (l, w, h),  rot = (cos yaw, sin yaw),  vel = (vx, vy),
           axis = (cos 2 yaw, sin 2 yaw)

Coordinates are computed in float32 in this order, as the published code does, so that cells are the same ones. The
heat maps are those of `gaussian.py`.

With a `box_radius` r, the (2 r + 1)² cells around the centre cell regress the box too, so that a peak beside the true
cell still finds it. Where such squares meet, a cell regresses the object whose centre is nearest to its middle.

Source: CenterPoint (Yin et al., CVPR 2021), section 4; the box radius is AFDet's offset radius (Ge et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops import Segments

from .gaussian import draw_gaussians, object_radii


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one task group for a batch.

    Args:
        heatmap: ``[B, K, Y, X]`` float32 in ``[0, 1]``, 1 at the centre cells.
        cells: ``[M]`` int64, cells ``(b * Y + y) * X + x`` that regress a box; two objects may share a centre cell.
        codes: ``[M, 1 to 3]`` float32 for each branch, see the top of the file; ``vel`` is NaN where it is unknown.
        boxes: ``[M, 7]`` float32, the object of each cell.
    """

    heatmap: Tensor
    cells: Tensor
    codes: dict[str, Tensor]
    boxes: Tensor


@dataclass(frozen=True)
class CenterTargetAssigner:
    """Draws the targets of a task group.

    Args:
        grid: the grid; its stride gives the head's cells.
        overlap: IoU that a box shifted by the radius still has.
        min_radius: smallest radius of a Gaussian, in cells.
        max_objects: objects of a sample beyond this number are left out, in the order of the ground truth.
        box_radius: cells around the centre cell, in x and y, that regress the box as well; 0 as published.
    """

    grid: Grid
    overlap: float = 0.1
    min_radius: int = 2
    max_objects: int = 500
    box_radius: int = 0

    def __call__(
        self,
        boxes: Boxes3D,  # N of all samples, sample after sample
        labels: Tensor,  # [N]
        batch_index: Tensor,  # [N]
        num_classes: int,
        batch_size: int,
    ) -> CenterTargets:
        """Draw the targets of a batch.

        Args:
            boxes: objects of the task group; those with l <= 0 or w <= 0 are left out, and those outside the grid
                move to its border, as published (the data pipeline is where a range filter belongs).
            labels: ``[N]`` int64 in ``[0, num_classes)``.
            batch_index: ``[N]`` int64, ascending.
            num_classes: K.
            batch_size: B.
        """
        use = (Segments.from_index(batch_index, batch_size).rank() < self.max_objects) & (boxes.sizes[:, :2] > 0).all(1)
        boxes, labels, batch_index = Boxes3D(boxes.tensor[use].float()), labels[use], batch_index[use]
        centers = centers_in_cells(boxes, self.grid)
        cells = centers.long()
        height, width = self.grid.out_shape
        radii = object_radii(boxes, self.grid, self.overlap, self.min_radius)
        maps = batch_index * num_classes + labels
        heatmap = draw_gaussians(cells, radii, maps, num_classes * batch_size, (height, width))
        owner, places = self._regressing_cells(centers, batch_index)
        return CenterTargets(
            heatmap=heatmap.view(batch_size, num_classes, height, width),
            cells=(batch_index[owner] * height + places[:, 1]) * width + places[:, 0],
            codes=encode_boxes(Boxes3D(boxes.tensor[owner]), centers[owner] - places),
            boxes=boxes.tensor[owner, :7],
        )

    def _regressing_cells(self, centers: Tensor, batch_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the object ``[M]`` and the place ``[M, 2]`` ``(x, y)`` of every cell that regresses a box."""
        owner, places = torch.arange(len(centers), device=centers.device), centers.long()
        if self.box_radius == 0:
            return owner, places
        steps = torch.arange(-self.box_radius, self.box_radius + 1, device=centers.device)
        square = torch.cartesian_prod(steps, steps)
        owner = owner.repeat_interleave(len(square))
        places = (places[:, None] + square).flatten(0, 1)
        height, width = self.grid.out_shape
        inside = ((places >= 0) & (places < places.new_tensor([width, height]))).all(dim=1)
        owner, places = owner[inside], places[inside]
        distance = (places + 0.5 - centers[owner]).square().sum(dim=1)
        _, cell = ((batch_index[owner] * height + places[:, 1]) * width + places[:, 0]).unique(return_inverse=True)
        nearest = distance.new_full((len(cell),), torch.inf).scatter_reduce(0, cell, distance, "amin")[cell]
        mine = (distance == nearest) | (places == centers[owner].long()).all(dim=1)
        return owner[mine], places[mine]


def centers_in_cells(boxes: Boxes3D, grid: Grid) -> Tensor:
    """Return the centres ``[N, 2]`` ``(x, y)`` in cells of the grid's map; those outside move to its border."""
    lower, size = (boxes.tensor.new_tensor(values[:2]) for values in (grid.lower, grid.voxel_size))
    last = boxes.tensor.new_tensor(grid.out_shape[::-1]) - 0.5
    centers = (boxes.centers[:, :2] - lower) / size / grid.stride
    return centers.clamp(min=torch.zeros_like(last), max=last)


def encode_boxes(boxes: Boxes3D, offsets: Tensor) -> dict[str, Tensor]:
    """Return regression codes ``[N, 1 to 3]`` by branch; ``offsets`` ``[N, 2]`` place centres inside their cells."""
    yaws = boxes.yaws
    return {
        "center": offsets,
        "center_z": boxes.centers[:, 2:],
        "dim": boxes.sizes.log(),
        "rot": torch.stack([yaws.cos(), yaws.sin()], dim=1),
        "vel": boxes.velocities,
        "axis": torch.stack([(2 * yaws).cos(), (2 * yaws).sin()], dim=1),
    }
