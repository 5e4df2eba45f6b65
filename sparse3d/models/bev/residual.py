"""Residual bird's-eye backbone with its neck.

Level l: one basic block with the level's stride and always a projected shortcut (1x1 convolution, BatchNorm), then
`num_blocks[l]` plain ones. A basic block is conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU.

Source: the 2D backbone of DSVT (Wang et al., CVPR 2023), after PillarNet.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.registry import MODELS

from .pyramid import NORM, BEVPyramid


@MODELS.register_module()
class ResidualBEVBackbone(BEVPyramid):
    """Residual levels and a concatenating neck on a bird's-eye map; arguments as ``BEVPyramid``."""

    def make_level(self, in_channels: int, out_channels: int, stride: int, num_blocks: int) -> nn.Sequential:
        """Return a level: a projected block with the stride, and ``num_blocks`` plain ones."""
        plain = [BasicBlock(out_channels, out_channels) for _ in range(num_blocks)]
        return nn.Sequential(BasicBlock(in_channels, out_channels, stride, project=True), *plain)


class BasicBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU.

    Args:
        in_channels: input width.
        out_channels: output width.
        stride: stride of the first convolution.
        project: bring the shortcut to the output's width and stride by a 1x1 convolution and BatchNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels, **NORM)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels, **NORM)
        # The shortcut strides by pooling single cells: oneDNN's strided 1x1 convolution writes out of bounds in its
        # backward pass on channels-last maps of fewer than 8 channels (torch 2.13).
        self.subsample = nn.AvgPool2d(1, stride) if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity()
        if project:
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels, **NORM))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in, Y, X]`` to ``[B, out, Y / stride, X / stride]``."""
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(self.subsample(x)), inplace=True)
