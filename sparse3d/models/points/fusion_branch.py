"""SparseFusion's point branch: CenterPoint's, which also says how high the points of each cell lie.

Source: SparseFusion (Xie et al., ICCV 2023), sections 3.1 and 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sparse3d.encoding.cell_heights import CellHeights, cell_heights
from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample

from ..features import Features
from ..layers.frozen import PartlyFrozen
from .sparse_branch import SparseConvBranch


@MODELS.register_module()
class HeightAwareBranch(SparseConvBranch, PartlyFrozen):
    """Sparse convolutions, with the heights of the cells beside their map.

    Args:
        max_points: points of a voxel that count for heights, the first ones; None for all.
        frozen: do not train the branch, and take ``"running"`` or ``"batch"`` statistics in its BatchNorms while the
            rest is trained; None trains it.
        options: arguments of ``SparseConvBranch``.
    """

    def __init__(self, max_points: int | None = None, frozen: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.max_points = max_points
        if frozen is not None:
            self.freeze((self.voxel_encoder, self.backbone, self.bev_backbone), frozen)

    def forward(self, batch: Batch, image_features: Features | None = None, samples: Sequence[Sample] = ()) -> Features:
        """Return the batch's bird's-eye map and heights; arguments and errors as ``PointBranch``."""
        features = super().forward(batch, image_features, samples)
        return replace(features, heights=self._heights(batch))

    def _heights(self, batch: Batch) -> CellHeights:
        return CellHeights.between(*cell_heights(batch.voxels, self.grid, self.max_points))
