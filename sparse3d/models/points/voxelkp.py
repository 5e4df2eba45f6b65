"""The backbone of VoxelKP: voxels -> a sparse bird's-eye map at stride 8, for human keypoints.

    stem       SubM3
    stage 1    2 residual blocks
    stage 2    strided, 2 residual blocks
    stage 3    strided, hybrid of SK, SK                        SK: selective kernels, `selective_kernel.py`
    stage 4    strided, hybrid of SK, SK
    stage 5    strided, hybrid of SK, attention, SK, attention  `box_attention.py`
    stage 6    the same                                         strides 1, 2, 4, 8, 16, 32
    fusion     stages 4, 5 and 6, each collapsed along z, are summed on the cells of stage 4
    output     convolution 3 x 3 that adds a ring of cells, submanifold convolution 3 x 3

A hybrid adds a small network on each voxel by itself to its blocks, so that fine detail passes by the neighbourhoods.

The paper's spatially aware encoding weighs features by their height before they are projected. In the released code the
collapse comes first, so that what is left of the height is one number a scale: 1, 2 and 3 (`SCALE_FACTORS`). A cell of
stage 5 or 6 lies on the second, or third, of the cells of stage 4 that it covers along each axis.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871), and its code; the trunk is VoxelNeXt's (Chen et al., CVPR
2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn

from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from sparse3d_ops import Segments
from sparse3d_ops.sparse import (
    SparseConv2d,
    SparseConv3d,
    SparseModule,
    SparseSequential,
    SparseTensor,
    SubMConv2d,
)

from ..layers.norm import RowNorm
from ..targets.ground_truth import GroundTruth
from .box_attention import BoxAttentionBlock, BoxWindows, StageIndex
from .selective_kernel import SelectiveKernelBlock
from .sparse_encoder import Losses
from .sparse_layers import SparseResidualBlock, conv_block, strided_block, submanifold_block

NUM_STAGES = 6
OUT_STRIDE = 8  # of stage 4, whose cells the fused map has
FUSED_STAGES = (4, 5, 6)
HYBRID_STAGES = (3, 4, 5, 6)
ATTENTION_STAGES = (5, 6)
SCALE_FACTORS = (1.0, 2.0, 3.0)


@MODELS.register_module()
class VoxelKPEncoder(BaseModule):
    """The backbone; see the top of the file.

    Args:
        grid: the grid of the voxels; its stride has to be 8, and its map divisible by 4.
        in_channels: columns of the voxels' features.
        channels: width of each of the six stages.
        kernel_sizes: of the strided convolutions of stages 2 to 6.
        out_channels: width of the map.
        num_heads: heads of the attention.
        window_size: edge of the attention's windows in voxels of their stage.
        windows_from_corner: windows start at the corner of the grid. False, as published, lets them start where the
            batch's voxels start, and what is found in a scan depend a little on the others in its batch.

    Raises:
        ValueError: if the lists have other lengths, or the grid another stride or a map that is not divisible by 4.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        in_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256, 256, 256),
        kernel_sizes: Sequence[int] = (5, 5, 3, 3, 3),
        out_channels: int = 384,
        num_heads: int = 4,
        window_size: int = 6,
        windows_from_corner: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = Grid.build(grid)
        _check_sizes(self.grid, channels, kernel_sizes)
        self.spatial_shape = (self.grid.shape[0] + 1, *self.grid.bev_shape)
        self.out_channels = out_channels
        self.stem = submanifold_block(in_channels, channels[0])
        self.stages = nn.ModuleList([SparseSequential(*_residual_blocks(channels[0]))])
        for stage, (narrow, wide) in enumerate(pairwise(channels), start=2):
            kernel = kernel_sizes[stage - 2]
            down = strided_block(narrow, wide, kernel, stride=2, padding=kernel // 2)
            heads = num_heads if stage in ATTENTION_STAGES else None
            hybrid = stage in HYBRID_STAGES
            blocks = [HybridStage(wide, heads, window_size, windows_from_corner)] if hybrid else _residual_blocks(wide)
            self.stages.append(SparseSequential(down, *blocks))
        self.collapses = nn.ModuleList(
            conv_block(SparseConv3d(channels[stage - 1], out_channels, (depth, 1, 1), bias=False))
            for stage, depth in zip(FUSED_STAGES, self.fused_depths(), strict=True)
        )
        self.dilate = conv_block(SparseConv2d(out_channels, out_channels, 3, padding=1, bias=False))
        self.shared = SparseSequential(
            SubMConv2d(out_channels, out_channels, 3), RowNorm(out_channels), nn.ReLU(inplace=True)
        )

    def fused_depths(self) -> list[int]:
        """Return the layers of the fused stages."""
        shape, depths = self.spatial_shape, []
        for stage in self.stages[1:]:
            shape = stage[0][0].geometry.coarse_shape(shape)
            depths.append(shape[0])
        return depths[-len(FUSED_STAGES) :]

    def forward(self, x: SparseTensor, truth: GroundTruth | None = None) -> tuple[SparseTensor, Losses]:
        """Encode voxels.

        Args:
            x: features of the voxels in ``spatial_shape``.
            truth: not used.

        Returns:
            A tensor of ``out_channels`` over the cells ``(y, x)`` of the grid's map, and this encoder's auxiliary
            losses, of which it has none.
        """
        x = self.stem(x)
        scales = []
        for number, stage in enumerate(self.stages, start=1):
            x = stage(x)
            if number in FUSED_STAGES:
                scales.append(x)
        return self.shared(self.dilate(self.fuse(scales))), {}

    def fuse(self, scales: Sequence[SparseTensor]) -> SparseTensor:
        """Return the sum of stages 4, 5 and 6 on the cells ``(y, x)`` of stage 4."""
        flat = [collapse(x) for collapse, x in zip(self.collapses, scales, strict=True)]
        features = torch.cat([factor * x.features for factor, x in zip(SCALE_FACTORS, flat, strict=True)])
        indices = torch.cat([_on_finest(x, level) for level, x in enumerate(flat)])
        return SparseTensor.coalesce(features, indices, flat[0].spatial_shape[1:], flat[0].batch_size)


def _on_finest(x: SparseTensor, level: int) -> torch.Tensor:
    """Return the indices ``[N, 3]`` ``(batch, y, x)`` of stage 4 for cells of the stage ``level`` above it."""
    indices = x.indices[:, [0, 2, 3]]
    cells = indices[:, 1:] * 2**level + level
    return torch.cat([indices[:, :1], cells], dim=1)


class HybridStage(SparseModule):
    """Blocks over neighbourhoods, and beside them a network on each voxel by itself; the sum of both.

    Args:
        channels: width C.
        num_heads: heads of the attention after each selective block; None for no attention.
        window_size: edge of its windows in voxels.
        windows_from_corner: see ``VoxelKPEncoder``.
    """

    def __init__(
        self, channels: int, num_heads: int | None = None, window_size: int = 6, windows_from_corner: bool = False
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.windows_from_corner = windows_from_corner
        self.attends = num_heads is not None
        layers = [(nn.Linear(channels, channels), RowNorm(channels), nn.ReLU(inplace=True)) for _ in range(3)]
        self.points = nn.Sequential(*(module for layer in layers for module in layer))
        self.blocks = nn.ModuleList()
        for _ in range(2):
            self.blocks.append(SelectiveKernelBlock(channels))
            if self.attends:
                self.blocks.append(BoxAttentionBlock(channels, num_heads))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return a tensor on the same sites with the same number of channels."""
        index = self.index(x)
        out = x
        for block in self.blocks:
            out = block(out, index)
        return out.replace_features(self.points(x.features) + out.features)

    def index(self, x: SparseTensor) -> StageIndex:
        """Do the index work of all blocks."""
        samples = Segments.from_index(x.indices[:, 0].long(), x.batch_size)
        if not self.attends:
            return StageIndex(samples)
        return StageIndex(samples, BoxWindows.partition(x.sites, self.window_size, self.windows_from_corner))


def _residual_blocks(channels: int) -> list[SparseResidualBlock]:
    return [SparseResidualBlock(channels) for _ in range(2)]


def _check_sizes(grid: Grid, channels: Sequence[int], kernel_sizes: Sequence[int]) -> None:
    if len(channels) != NUM_STAGES or len(kernel_sizes) != NUM_STAGES - 1:
        raise ValueError(
            f"VoxelKPEncoder: expected {NUM_STAGES} channels and {NUM_STAGES - 1} kernel_sizes, "
            f"got {list(channels)} and {list(kernel_sizes)}"
        )
    if grid.stride != OUT_STRIDE or any(cells % 4 for cells in grid.out_shape):
        raise ValueError(
            f"VoxelKPEncoder: expected a grid of stride {OUT_STRIDE} whose map is divisible by 4, "
            f"got stride {grid.stride} and a map of {grid.out_shape} (y, x)"
        )
