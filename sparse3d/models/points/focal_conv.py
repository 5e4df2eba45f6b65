"""Focal sparse convolution: a submanifold convolution whose sites grow around what it takes for important.

    predictor   x, or a SubM3 block of it -> SubM3 to 27 scores: 26 neighbours, then the voxel itself -> sigmoid
    selection   foreground, growth, weight, merging: `focal_layers.py`
    output      SubM3 - BatchNorm - ReLU on the grown sites

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d_ops.sparse import SparseTensor, SubMConv3d

from ..layers.norm import RowNorm
from .focal_layers import OFFSETS, choose_foreground, foreground_weights, grow, propose
from .sparse_layers import NORM, submanifold_block


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
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.top_k = top_k
        self.scale_by_importance = scale_by_importance
        self.weigh_foreground = weigh_foreground
        self.skip_first_layer = skip_first_layer
        self.enlarge = None if enlarge_channels is None else submanifold_block(channels, enlarge_channels)
        self.predictor = SubMConv3d(enlarge_channels or channels, len(OFFSETS) + 1, 3, bias=False)
        self.conv = SubMConv3d(channels, channels, 3, bias=False)
        self.norm = RowNorm(channels, **NORM)

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, Tensor]:
        """Return the output on the grown sites, and the importance ``[N]`` float32 of each voxel of the input."""
        scores = self.scores(x)
        probabilities, importance = scores[:, :-1], scores[:, -1]
        grown = self.select(x, probabilities, importance)
        out = self.conv(grown)
        return out.replace_features(F.relu(self.norm(out.features), inplace=True)), importance

    def scores(self, x: SparseTensor) -> Tensor:
        """Return the probabilities of each voxel's neighbours and, last, its importance ``[N, 27]`` float32."""
        seen = x if self.enlarge is None else self.enlarge(x)
        return self.predictor(seen).features.float().sigmoid()

    def foreground(self, x: SparseTensor, importance: Tensor) -> Tensor:
        """Return the mask ``[N]`` of foreground among the voxels of the input."""
        return choose_foreground(importance, x.indices[:, 0].long(), x.batch_size, self.threshold, self.top_k)

    def select(
        self,
        x: SparseTensor,
        probabilities: Tensor,  # [N, 26]
        importance: Tensor,  # [N]
    ) -> SparseTensor:
        """Return the features, scaled as the options say, on the sites and what grew around foreground."""
        foreground = self.foreground(x, importance)
        proposals = propose(x.sites, foreground, probabilities, self.threshold, self.skip_first_layer)
        features = x.features
        if self.scale_by_importance:
            features = features * importance[:, None].to(features.dtype)
        if self.weigh_foreground:
            weights = foreground_weights(x.sites, foreground, proposals)
            features = features * weights[:, None].to(features.dtype)
        return grow(x.sites, features, proposals)
