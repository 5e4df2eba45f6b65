"""Mean voxel encoder: a voxel's feature is the mean of its points.

Source: VoxelNet's successors, here CenterPoint (Yin et al., CVPR 2021).
"""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Voxels
from sparse3d_ops import mean_points


@MODELS.register_module()
class MeanVoxelEncoder(BaseModule):
    """Average the points of each voxel, in float32. It has no parameters.

    Args:
        num_features: F, columns of the point tensor.
        max_points: only so many of a voxel's points count, the first ones, as in voxels with a fixed number of slots;
            None for all of them. The number of voxels is not limited.

    Raises:
        ValueError: if ``max_points`` is not positive.
    """

    def __init__(self, num_features: int, max_points: int | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if max_points is not None and max_points < 1:
            raise ValueError(f"max_points: expected a positive number or None, got {max_points}")
        self.num_features = num_features
        self.max_points = max_points
        self.out_channels = num_features

    def forward(self, voxels: Voxels) -> Tensor:
        """Return the voxels' features ``[V, F]`` float32, in the order of ``voxels.coords``.

        Raises:
            ValueError: if the points have another number of columns.
        """
        points, index = voxels.points, voxels.point_to_voxel
        if points.ndim != 2 or points.shape[1] != self.num_features:
            raise ValueError(f"voxels.points: expected [P, {self.num_features}], got {list(points.shape)}")
        return mean_points(points, index, len(voxels.coords), self.max_points)
