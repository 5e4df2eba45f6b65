"""Residual bird's-eye backbone with its neck.

Level l: one basic block with the level's stride and always a projected shortcut (1x1 convolution, BatchNorm), then
`num_blocks[l]` plain ones. A basic block is conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU. Each level's
output is brought to one resolution by a convolution whose kernel equals its stride: transposed for an upsampling
stride of 1 or more, plain with stride round(1 / s) below 1. The results are concatenated in order of the levels.

Source: the 2D backbone of DSVT (Wang et al., CVPR 2023), after PillarNet and SECOND's neck.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS

NORM = dict(eps=1e-3, momentum=0.01)


@MODELS.register_module()
class ResidualBEVBackbone(BaseModule):
    """Residual levels and a concatenating neck on a bird's-eye map.

    Args:
        in_channels: channels of the map.
        num_blocks: plain blocks of each level after its first, e.g. ``[1, 2, 2]``.
        strides: stride of each level with respect to the one before, e.g. ``[1, 2, 2]``.
        channels: width of each level.
        up_strides: upsampling of each level's output, e.g. ``[1, 2, 4]``; below 1 it is reduced.
        up_channels: width of each level's part of the result.

    Raises:
        ValueError: if the lists differ in length, or the levels' results differ in resolution.
    """

    def __init__(
        self,
        in_channels: int,
        num_blocks: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        up_strides: Sequence[float],
        up_channels: Sequence[int],
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len({len(each) for each in (num_blocks, strides, channels, up_strides, up_channels)}) != 1:
            raise ValueError("num_blocks, strides, channels, up_strides and up_channels need one entry a level each")
        self.levels = nn.ModuleList()
        self.necks = nn.ModuleList()
        width, stride, scales = in_channels, 1, set()
        for level, out in enumerate(channels):
            blocks = [BasicBlock(width, out, strides[level], project=True)]
            blocks += [BasicBlock(out, out) for _ in range(num_blocks[level])]
            self.levels.append(nn.Sequential(*blocks))
            self.necks.append(_neck(out, up_channels[level], up_strides[level]))
            width, stride = out, stride * strides[level]
            scales.add(round(stride / up_strides[level], 6))
        if len(scales) != 1:
            raise ValueError(
                f"strides {list(strides)} and up_strides {list(up_strides)} end at scales {sorted(scales)}"
            )
        self.out_channels = sum(up_channels)

    def forward(self, bev: Tensor) -> Tensor:
        """Map ``[B, in_channels, Y, X]`` to ``[B, sum(up_channels), Y', X']``, in channels-last memory."""
        bev = bev.contiguous(memory_format=torch.channels_last)
        outputs = []
        for level, neck in zip(self.levels, self.necks, strict=True):
            bev = level(bev)
            outputs.append(neck(bev))
        return torch.cat(outputs, dim=1)


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


def _neck(in_channels: int, out_channels: int, stride: float) -> nn.Sequential:
    convolution, kernel = (nn.ConvTranspose2d, int(stride)) if stride >= 1 else (nn.Conv2d, round(1 / stride))
    layer = convolution(in_channels, out_channels, kernel, stride=kernel, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels, **NORM), nn.ReLU(inplace=True))
