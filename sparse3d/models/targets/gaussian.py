"""Heat maps of objects: a Gaussian at each centre cell, as wide as the object is large.

    heat = max over objects of exp(-(du² + dv²) / (2 σ²)),   |du|, |dv| <= r,   σ = (2 r + 1) / 6

The Gaussians of all objects are evaluated at once on their flattened patches and merged by a scattered maximum.

Source: CornerNet (Law and Deng, ECCV 2018), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops import Segments


def object_radii(boxes: Boxes3D, grid: Grid, overlap: float, min_radius: int) -> Tensor:
    """Return the radii ``[N]`` int64 of boxes in cells of the grid's output, at least ``min_radius``."""
    size = boxes.tensor.new_tensor(grid.voxel_size[:2])
    length, width = (boxes.sizes[:, :2] / size / grid.stride).unbind(1)
    return published_radius(length, width, overlap).long().clamp(min=min_radius)


def draw_gaussians(
    cells: Tensor,  # [N, 2]
    radii: Tensor,  # [N]
    maps: Tensor,  # [N]
    num_maps: int,
    shape: tuple[int, int],
) -> Tensor:  # [num_maps * Y * X]
    """Draw Gaussians on empty maps; what lies outside of a map is cut off.

    Args:
        cells: ``[N, 2]`` int64 ``(x, y)``.
        radii: ``[N]`` int64 in cells.
        maps: ``[N]`` int64, the map that each belongs on.
        num_maps: number of maps.
        shape: their cells ``(Y, X)``.
    """
    height, width = shape
    diameters = 2 * radii + 1
    owner = torch.repeat_interleave(diameters.square())
    place = Segments.from_index(owner, len(radii)).rank()
    offset = torch.stack([place % diameters[owner], place // diameters[owner]], dim=1) - radii[owner, None]
    x, y = (cells[owner] + offset).unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    sigma = diameters[owner] / 6
    heat = torch.exp(offset.square().sum(dim=1) / (-2 * sigma.square()))
    target = (maps[owner] * height + y) * width + x
    flat = heat.new_zeros(num_maps * height * width)
    return flat.scatter_reduce(0, target[inside], heat[inside], "amax")


def published_radius(length: Tensor, width: Tensor, overlap: float) -> Tensor:
    """Return CornerNet's radius ``[N]`` for boxes of ``length`` and ``width`` in cells, as the published code has it.

    Of three cases (a box that is shifted, inside, around) the smallest root counts. The published code divides every
    root by 2 instead of by 2 a, which makes the second and third cases too large; training recipes are tuned to it.
    """
    total, area = length + width, length * width
    roots = [
        _half_root(1, total, area * (1 - overlap) / (1 + overlap)),
        _half_root(4, 2 * total, (1 - overlap) * area),
        _half_root(4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    ]
    return torch.stack(roots).amin(dim=0)


def _half_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    return (b + (b.square() - 4 * a * c).sqrt()) / 2
