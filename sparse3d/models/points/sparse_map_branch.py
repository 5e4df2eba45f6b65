"""The point branch of detectors that stay sparse: voxels -> sparse tensor -> sparse bird's-eye map."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample
from sparse3d_ops.sparse import SparseTensor

from ..features import Features
from ..targets.ground_truth import GroundTruth


@MODELS.register_module()
class SparseMapBranch(BaseModule):
    """Encode voxels and convolve them to a map of which only the occupied cells exist.

    Args:
        voxel_encoder: ``Voxels`` -> features ``[V, C]``.
        backbone: ``(SparseTensor, GroundTruth or None)`` -> a ``SparseTensor`` over ``(y, x)`` at the grid's stride,
            and auxiliary losses.
    """

    def __init__(self, voxel_encoder: dict, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.voxel_encoder = MODELS.build(voxel_encoder)
        self.backbone = MODELS.build(backbone)

    def forward(self, batch: Batch, image_features: Features | None = None, samples: Sequence[Sample] = ()) -> Features:
        """Return the batch's sparse map; arguments and errors as ``PointBranch``."""
        voxels = batch.voxels
        if voxels is None:
            raise ValueError(f"{type(self).__name__}: batch.voxels is None; give the Preprocessor the config's grid")
        rows = self.voxel_encoder(voxels)
        x = SparseTensor(rows, voxels.coords, self.backbone.spatial_shape, batch.batch_size)
        x, losses = self.backbone(x, GroundTruth.gather(samples) if samples else None)
        return Features(sparse_bev=x, losses=losses)
