"""Building blocks of sparse-convolution encoders.

    conv block:      convolution without bias - BatchNorm - ReLU
    residual block:  SubM3 - BN - ReLU - SubM3 - BN, plus its input, ReLU; CenterPoint's convolutions have biases

Source: SECOND (Yan et al., Sensors 2018); the residual block is CenterPoint's (Yin et al., CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from sparse3d_ops.sparse import SparseConv3d, SparseModule, SparseSequential, SparseTensor, SubMConv3d

from ..layers.norm import RowNorm

NORM = dict(eps=1e-3, momentum=0.01)


def submanifold_block(in_channels: int, out_channels: int) -> SparseSequential:
    """Return a 3x3x3 conv block that keeps the sites."""
    return conv_block(SubMConv3d(in_channels, out_channels, 3, bias=False))


def strided_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int] = 0,
) -> SparseSequential:
    """Return a conv block that goes to a coarser grid; sizes are one number or ``(z, y, x)``."""
    return conv_block(SparseConv3d(in_channels, out_channels, kernel_size, stride, padding, bias=False))


def conv_block(convolution: SubMConv3d | SparseConv3d) -> SparseSequential:
    """Return a convolution with its BatchNorm and ReLU."""
    return SparseSequential(convolution, RowNorm(convolution.out_channels, **NORM), nn.ReLU(inplace=True))


class SparseResidualBlock(SparseModule):
    """Two submanifold convolutions around a shortcut; see the top of the file."""

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = SubMConv3d(channels, channels, 3, bias=bias)
        self.norm1 = RowNorm(channels, **NORM)
        self.conv2 = SubMConv3d(channels, channels, 3, bias=bias)
        self.norm2 = RowNorm(channels, **NORM)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return a tensor on the same sites with the same number of channels."""
        out = self.conv1(x)
        out = out.replace_features(F.relu(self.norm1(out.features), inplace=True))
        out = self.conv2(out)
        return out.replace_features(F.relu(self.norm2(out.features) + x.features, inplace=True))
