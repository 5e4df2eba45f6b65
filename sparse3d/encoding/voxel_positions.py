"""Where voxels lie.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), as in its published code.
"""

from __future__ import annotations

from torch import Tensor

from sparse3d.structures import Grid
from sparse3d_ops.sparse import Sites


def voxel_positions(
    sites: Sites,
    grid: Grid,
    stride: int,
) -> Tensor:
    """Return the lower corners ``[N, 3]`` float32 ``(x, y, z)`` in metres of voxels that are ``stride`` cells long.

    Corners, as published, not centres.
    """
    cells = sites.coords[:, [3, 2, 1]].float() * stride
    return cells * cells.new_tensor(grid.voxel_size) + cells.new_tensor(grid.lower)
