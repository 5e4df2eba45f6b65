"""The point branch of a detector: voxels -> bird's-eye map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Grid, Sample

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

    def forward(self, batch: Batch, image_features: Features | None = None, samples: Sequence[Sample] = ()) -> Features:
        """Return the batch's bird's-eye map, and where there are samples the branch's auxiliary losses.

        Args:
            batch: with voxels.
            image_features: what the image branch made, if there is one.
            samples: the batch's samples with ``gt`` in training; empty otherwise.

        Raises:
            ValueError: if the batch has no voxels (as opposed to empty ones).
        """
        if batch.voxels is None:
            raise ValueError(f"{type(self).__name__}: batch.voxels is None; give the Preprocessor the config's grid")
        bev, losses = self.make_map(self.voxel_encoder(batch.voxels), batch, image_features, samples)
        return Features(bev=self.bev_backbone(bev), losses=losses)

    def make_map(
        self, features: Tensor, batch: Batch, image_features: Features | None, samples: Sequence[Sample]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the map of voxel features ``[V, C]``, and auxiliary losses, of which this branch has none."""
        coords = batch.voxels.coords
        if self.backbone is not None:
            features, coords = self.backbone(features, coords, batch.batch_size)
        return scatter_to_bev(features, coords, batch.batch_size, self.grid.bev_shape), {}
