"""Focal sparse convolution: a submanifold convolution whose sites grow around what it takes for important.

    predictor   x, or a SubM3 block of it -> SubM3 to 27 scores: 26 neighbours, then the voxel itself -> sigmoid
    selection   foreground, growth, weight, merging: `sparse3d_ops/sparse/growth.py`
    output      SubM3 - BatchNorm - ReLU on the grown sites

With images, what voxels see in them (`encoding/image_sampling.py`) is put before, or added to, what the predictor
reads, and added to the output before its norm, where new voxels look for themselves.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), sections 3 and 3.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d_ops.sparse import FOCAL_OFFSETS, FocalGrowth, Sites, SparseTensor, SubMConv3d

from ..layers.norm import RowNorm
from .sparse_layers import NORM, submanifold_block

FUSIONS = ("concat", "sum")
Look = Callable[[Sites], Tensor]  # image features [N, channels] of N voxels


class FocalConv(nn.Module):
    """One focal convolution. The defaults are those of the code released for KITTI and Waymo.

    Args:
        channels: width of input and output.
        threshold: t, for voxels and for neighbours.
        top_k: foreground is the share t of most important voxels, rather than importances above t.
        scale_by_importance: multiply all features by their voxel's importance.
        weigh_foreground: multiply foreground by the mean probability of its cell.
        enlarge_channels: width of a SubM3 block before the predictor; None for no such block.
        skip_first_layer: grow into no cell with an index of 0 along any axis, as published.
        image_fusion: how the predictor reads image features: ``"concat"``, before the voxel's, or ``"sum"``; None for a
            detector without images.

    Raises:
        ValueError: if the fusion is unknown.
    """

    def __init__(
        self,
        channels: int,
        threshold: float = 0.5,
        top_k: bool = True,
        scale_by_importance: bool = False,
        weigh_foreground: bool = True,
        enlarge_channels: int | None = None,
        skip_first_layer: bool = True,
        image_fusion: str | None = None,
    ) -> None:
        super().__init__()
        if image_fusion not in (*FUSIONS, None):
            raise ValueError(f"image_fusion: must be one of {FUSIONS} or None, got {image_fusion!r}")
        self.growth = FocalGrowth(threshold, top_k, scale_by_importance, weigh_foreground, skip_first_layer)
        self.image_fusion = image_fusion
        self.enlarge = None if enlarge_channels is None else submanifold_block(channels, enlarge_channels)
        width = (enlarge_channels or channels) + (channels if image_fusion == "concat" else 0)
        self.predictor = SubMConv3d(width, len(FOCAL_OFFSETS) + 1, 3, bias=False)
        self.conv = SubMConv3d(channels, channels, 3, bias=False)
        self.norm = RowNorm(channels, **NORM)

    def forward(self, x: SparseTensor, look: Look | None = None) -> tuple[SparseTensor, Tensor]:
        """Return the output on the grown sites, and the importance ``[N]`` float32 of each voxel of the input.

        Args:
            x: N voxels.
            look: returns what voxels see in the images; for ``image_fusion``.

        Raises:
            ValueError: if there is a fusion and nothing to look with, or the other way round.
        """
        if (look is None) != (self.image_fusion is None):
            raise ValueError(f"FocalConv: image_fusion is {self.image_fusion!r}, but look is {look}")
        scores = self.predictor(self.describe(x, look)).features.float().sigmoid()
        out = self.conv(self.growth(x, scores))
        features = out.features if look is None else out.features + look(out.sites)
        return out.replace_features(F.relu(self.norm(features), inplace=True)), scores[:, -1]

    def describe(self, x: SparseTensor, look: Look | None = None) -> SparseTensor:
        """Return what the predictor reads."""
        seen = x if self.enlarge is None else self.enlarge(x)
        if look is None:
            return seen
        if self.image_fusion == "concat":
            return seen.replace_features(torch.cat([look(x.sites), seen.features], dim=1))
        return seen.replace_features(seen.features + look(x.sites))
