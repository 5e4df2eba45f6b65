"""Sparse encoder with focal convolutions at the end of some stages.

One more may read the images, after everything else of the first stage (Focals Conv-F). Training adds one auxiliary
loss: the sum over all focal convolutions of `focal_layers.importance_loss`.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), sections 3.3 and 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sparse3d.encoding.voxel_positions import voxel_positions
from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from sparse3d_ops.sparse import Sites, SparseTensor

from ..targets.ground_truth import GroundTruth
from .focal_conv import FocalConv, Look
from .focal_layers import BOX_RULES, importance_loss, inside_objects
from .sparse_encoder import Losses, SparseEncoder


@MODELS.register_module()
class FocalEncoder(SparseEncoder):
    """A ``SparseEncoder`` with focal convolutions.

    Args:
        grid: as ``SparseEncoder``; positions of voxels for the loss are taken from it.
        in_channels: as ``SparseEncoder``, as are ``channels``, ``num_blocks``, ``block`` and ``out_channels``.
        focal_stages: stages that end with a focal convolution, from 1.
        focal: arguments of ``FocalConv`` besides its width.
        importance_targets: which voxels count as important: ``"rotated"``, those in an object; ``"doubled"``, as the
            code released for nuScenes has it (see ``inside_objects``); None for no loss at all, as the model published
            for nuScenes was trained.
        image_focal: arguments of the ``FocalConv`` that reads the images; None for none.

    Raises:
        ValueError: as ``SparseEncoder``, and if a stage or the targets are unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        block: str = "residual",
        out_channels: int = 128,
        focal_stages: Sequence[int] = (1, 2, 3),
        focal: Mapping[str, Any] | None = None,
        importance_targets: str | None = "rotated",
        image_focal: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(grid, in_channels, channels, num_blocks, block, out_channels, init_cfg=init_cfg)
        unknown = sorted(set(focal_stages) - set(range(1, len(channels) + 1)))
        if unknown or importance_targets not in (*BOX_RULES, None):
            raise ValueError(
                f"focal_stages: expected any of 1 to {len(channels)}, importance_targets: any of {BOX_RULES} or None; "
                f"got {list(focal_stages)} and {importance_targets!r}"
            )
        self.importance_targets = importance_targets
        self.focals = nn.ModuleDict(
            {str(number): FocalConv(channels[number - 1], **(focal or {})) for number in sorted(focal_stages)}
        )
        self.image_focal = None if image_focal is None else FocalConv(channels[0], **image_focal)

    def forward(
        self, x: SparseTensor, truth: GroundTruth | None = None, look: Look | None = None
    ) -> tuple[SparseTensor, Losses]:
        """Encode voxels; arguments and results as ``SparseEncoder``, with ``loss_importance`` where there is truth.

        ``look`` returns what voxels of the first stage see in the images, for ``image_focal``.
        """
        losses: list[Tensor] = []
        x = self.stem(x)
        for number, stage in enumerate(self.stages, start=1):
            x = stage(x)
            if str(number) in self.focals:
                x = self._focus(self.focals[str(number)], x, 2 ** (number - 1), truth, losses)
            if number == 1 and self.image_focal is not None:
                x = self._focus(self.image_focal, x, 1, truth, losses, look)
        return self.squeeze(x), {"loss_importance": sum(losses)} if losses else {}

    def _focus(
        self,
        focal: FocalConv,
        x: SparseTensor,
        stride: int,
        truth: GroundTruth | None,
        losses: list[Tensor],
        look: Look | None = None,
    ) -> SparseTensor:
        """Apply a focal convolution to voxels ``stride`` cells long, and append its loss where there is truth."""
        out, importance = focal(x, look)
        if truth is not None and self.importance_targets is not None:
            losses.append(self.loss(importance, x.sites, stride, truth))
        return out

    def loss(self, importance: Tensor, sites: Sites, stride: int, truth: GroundTruth) -> Tensor:
        """Return the loss (a scalar) of the importances ``[N]`` of voxels that are ``stride`` cells long."""
        positions = voxel_positions(sites, self.grid, stride)
        inside = inside_objects(positions, sites.indices[:, 0], truth, self.importance_targets)
        return importance_loss(importance, inside)
