"""The point branch of a detector: voxels -> bird's-eye map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Grid

from ..bev.scatter import scatter_to_bev
from ..features import Features


@MODELS.register_module()
class PointBranch(BaseModule):
    """Encode voxels, let them exchange information, lay them out as a map, and refine the map.

    Args:
        grid: the grid of the voxels.
        voxel_encoder: ``Voxels`` -> features ``[V, C]``.
        backbone: ``(features, coords, batch_size)`` -> features and coordinates of a single layer of voxels; None
            where the encoder's voxels are pillars already.
        bev_backbone: map ``[B, C, Y, X]`` -> map.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        voxel_encoder: dict,
        bev_backbone: dict,
        backbone: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = Grid.build(grid)
        self.voxel_encoder = MODELS.build(voxel_encoder)
        self.backbone = None if backbone is None else MODELS.build(backbone)
        self.bev_backbone = MODELS.build(bev_backbone)

    def forward(self, batch: Batch, image_features: Features | None = None) -> Features:
        """Return the batch's bird's-eye map; image features are of no use to this branch.

        Raises:
            ValueError: if the batch has no voxels (as opposed to empty ones).
        """
        voxels = batch.voxels
        if voxels is None:
            raise ValueError("PointBranch: batch.voxels is None; give the Preprocessor the config's grid")
        features, coords = self.voxel_encoder(voxels), voxels.coords
        if self.backbone is not None:
            features, coords = self.backbone(features, coords, batch.batch_size)
        bev = scatter_to_bev(features, coords, batch.batch_size, self.grid.bev_shape)
        return Features(bev=self.bev_backbone(bev))
