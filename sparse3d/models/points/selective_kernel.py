"""Sparse selective kernels: voxels see a near and a far neighbourhood, and each channel of a scan weighs the two.

    branch k   u_k = ReLU(BN(SubM_k(x)))                     kernels of 3 and 5 voxels on the same sites
    squeeze    s = mean over a sample's voxels of Σ_k u_k,   z = ReLU(BN(W s))
    select     a = softmax over k of V_k z,                  out = Σ_k a_k u_k

The block wraps the unit as a residual block wraps a convolution:

    SubM3 - BN - ReLU - unit - SubM3 - BN, plus its input, ReLU

Convolutions around the unit have biases, those within have none. A sample without voxels has a mean of 0.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871), after Selective Kernel Networks (Li et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d_ops import Segments, segment_gather, segment_mean
from sparse3d_ops.sparse import SparseTensor, SubMConv3d

from ..layers.norm import RowNorm
from .box_attention import StageIndex
from .sparse_layers import NORM, conv_block

KERNEL_SIZES = (3, 5)
REDUCTION = 8  # channels to a channel of the squeezed description


class SelectiveUnit(nn.Module):
    """Branches of different kernels and the choice between them; see the top of the file.

    Args:
        channels: width C.
        kernel_sizes: odd kernel size of each branch.
        reduction: how many times the squeezed description is narrower than C.
    """

    def __init__(self, channels: int, kernel_sizes: Sequence[int] = KERNEL_SIZES, reduction: int = REDUCTION) -> None:
        super().__init__()
        narrow = channels // reduction
        if narrow < 1:
            raise ValueError(f"SelectiveUnit: {channels} channels cannot be squeezed {reduction} times")
        self.branches = nn.ModuleList(conv_block(SubMConv3d(channels, channels, k, bias=False)) for k in kernel_sizes)
        self.squeeze = nn.Sequential(nn.Linear(channels, narrow, bias=False), RowNorm(narrow), nn.ReLU())
        self.excitations = nn.ModuleList(nn.Linear(narrow, channels, bias=False) for _ in kernel_sizes)

    def forward(self, x: SparseTensor, samples: Segments) -> SparseTensor:
        """Return a tensor on the same sites; ``samples`` groups its rows by sample."""
        branches = torch.stack([branch(x).features for branch in self.branches])  # [K, N, C]
        weights = self.select(branches.sum(dim=0), samples)
        return x.replace_features(sum(w * u for w, u in zip(weights, branches, strict=True)))

    def select(
        self,
        features: Tensor,  # [N, C]
        samples: Segments,
    ) -> list[Tensor]:
        """Return each branch's weights ``[N, C]`` for the sum of all branches."""
        squeezed = self.squeeze(segment_mean(features, samples))
        weights = torch.stack([excite(squeezed) for excite in self.excitations]).softmax(dim=0)  # [K, B, C]
        return [segment_gather(each, samples) for each in weights]


class SelectiveKernelBlock(nn.Module):
    """A residual block round a selective unit; see the top of the file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = SubMConv3d(channels, channels, 3)
        self.norm1 = RowNorm(channels, **NORM)
        self.unit = SelectiveUnit(channels)
        self.conv2 = SubMConv3d(channels, channels, 3)
        self.norm2 = RowNorm(channels, **NORM)

    def forward(self, x: SparseTensor, index: StageIndex) -> SparseTensor:
        """Return a tensor on the same sites, whose ``index`` says which rows are of one sample."""
        out = self.conv1(x)
        out = out.replace_features(F.relu(self.norm1(out.features), inplace=True))
        out = self.conv2(self.unit(out, index.samples))
        return out.replace_features(F.relu(self.norm2(out.features) + x.features, inplace=True))
