"""The point branch of detectors with sparse convolutions: voxels -> sparse tensor -> bird's-eye map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Grid, Sample
from sparse3d_ops.sparse import SparseTensor

from ..bev.scatter import stack_layers
from ..features import Features
from ..targets.ground_truth import GroundTruth
from .branch import PointBranch


@MODELS.register_module()
class SparseConvBranch(PointBranch):
    """Encode voxels, convolve them to a coarser grid, stack what is left of the height, and refine the map.

    Arguments as ``PointBranch``, of which the backbone is required: it maps ``(SparseTensor, GroundTruth or None)`` to
    a ``SparseTensor`` at the grid's stride and auxiliary losses.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        voxel_encoder: dict,
        backbone: dict,
        bev_backbone: dict,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(grid, voxel_encoder, bev_backbone, backbone, init_cfg)

    def make_map(
        self, features: Tensor, batch: Batch, image_features: Features | None, samples: Sequence[Sample]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the map ``[B, C x layers, Y, X]`` of voxel features ``[V, C]``, and the backbone's losses."""
        x = SparseTensor(features, batch.voxels.coords, self.backbone.spatial_shape, batch.batch_size)
        truth = GroundTruth.gather(samples) if samples else None
        x, losses = self.backbone(x, truth, **self.context(image_features))
        return stack_layers(x), losses

    def context(self, image_features: Features | None) -> dict[str, Any]:
        """Return what else the backbone is told; nothing, where it reads voxels alone."""
        return {}
