"""Sparse-convolution encoders: voxels -> features at an eighth of the resolution, as CenterPoint and SECOND have them.

    stem       SubM3 block to the first width
    stage 1    blocks
    stage 2..  strided block (kernel 3, stride 2, padding 1; in the last stage no padding along z), blocks
    squeeze    strided block (3, 1, 1), stride (2, 1, 1), without padding

A grid of 40 layers has 41 here, of which the topmost stays empty, and ends with 2: 41, 21, 11, 5, 2.

Source: CenterPoint (Yin et al., CVPR 2021), whose stages have two residual blocks; OpenPCDet's plain encoder, whose
stages have two SubM3 blocks, the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from sparse3d_ops.sparse import SparseSequential, SparseTensor

from ..targets.ground_truth import GroundTruth
from .sparse_layers import SparseResidualBlock, strided_block, submanifold_block

BLOCKS = ("residual", "plain")
Losses = dict[str, Tensor]


@MODELS.register_module()
class SparseEncoder(BaseModule):
    """Stem, stages and the squeeze of the height.

    Args:
        grid: the grid of the voxels; its stride has to be that of the stages.
        in_channels: columns of the voxels' features.
        channels: width of each stage, e.g. ``[16, 32, 64, 128]``.
        num_blocks: blocks of each stage after its strided one.
        block: ``"residual"`` (CenterPoint) or ``"plain"`` (SECOND).
        out_channels: width of each of the layers that are left.
        residual_bias: give the convolutions of residual blocks biases, as CenterPoint does and mmdetection3d does not.

    Raises:
        ValueError: if the block is unknown, the lists differ in length, or the grid has another stride or too few
            layers.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        block: str = "residual",
        out_channels: int = 128,
        residual_bias: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = Grid.build(grid)
        if block not in BLOCKS:
            raise ValueError(f"block: must be one of {BLOCKS}, got {block!r}")
        if len(num_blocks) != len(channels) or self.grid.stride != 2 ** (len(channels) - 1):
            raise ValueError(
                f"{len(channels)} stages need as many num_blocks, and a grid of stride {2 ** (len(channels) - 1)}; "
                f"got num_blocks {list(num_blocks)} and stride {self.grid.stride}"
            )
        self.stem = submanifold_block(in_channels, channels[0])
        strided: list[SparseSequential | None] = [None]
        for number, (narrow, wide) in enumerate(pairwise(channels), start=2):
            padding = (0, 1, 1) if number == len(channels) else 1
            strided.append(strided_block(narrow, wide, 3, stride=2, padding=padding))
        self.stages = nn.ModuleList(
            SparseSequential(*([] if down is None else [down]), *_blocks(block, width, count, residual_bias))
            for down, width, count in zip(strided, channels, num_blocks, strict=True)
        )
        self.squeeze = strided_block(channels[-1], out_channels, (3, 1, 1), (2, 1, 1))
        self.spatial_shape = (self.grid.shape[0] + 1, *self.grid.bev_shape)
        self.out_shape = self._out_shape([*strided[1:], self.squeeze])
        self.bev_channels = out_channels * self.out_shape[0]

    def _out_shape(self, strided: Sequence[SparseSequential]) -> tuple[int, int, int]:
        shape = self.spatial_shape
        try:
            for block in strided:
                shape = block[0].geometry.coarse_shape(shape)
        except ValueError as error:
            raise ValueError(f"grid: {self.grid.shape[0]} layers are too few for this encoder; {error}") from error
        return shape

    def forward(self, x: SparseTensor, truth: GroundTruth | None = None) -> tuple[SparseTensor, Losses]:
        """Encode voxels.

        Args:
            x: features of the voxels in ``spatial_shape``.
            truth: the objects of the batch where losses are asked for.

        Returns:
            A tensor of ``out_channels`` in ``out_shape``, and this encoder's auxiliary losses, of which it has none.
        """
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.squeeze(x), {}


def _blocks(kind: str, channels: int, count: int, residual_bias: bool) -> list[nn.Module]:
    if kind == "residual":
        return [SparseResidualBlock(channels, residual_bias) for _ in range(count)]
    return [submanifold_block(channels, channels) for _ in range(count)]
