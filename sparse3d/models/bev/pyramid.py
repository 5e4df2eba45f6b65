"""What bird's-eye backbones share: levels of falling resolution, and a neck that brings them back together.

Each level's output is brought to one resolution by a convolution whose kernel equals its stride: transposed for an
upsampling stride of 1 or more, plain with stride round(1 / s) below 1. The results are concatenated in order of the
levels.

Source: SECOND (Yan et al., Sensors 2018).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

NORM = dict(eps=1e-3, momentum=0.01)


class BEVPyramid(BaseModule):
    """Levels and a concatenating neck on a bird's-eye map; what a level is made of is up to the subclass.

    Args:
        in_channels: channels of the map.
        num_blocks: blocks of each level after its first, e.g. ``[1, 2, 2]``.
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
            self.levels.append(self.make_level(width, out, strides[level], num_blocks[level]))
            self.necks.append(make_neck(out, up_channels[level], up_strides[level]))
            width, stride = out, stride * strides[level]
            scales.add(round(stride / up_strides[level], 6))
        if len(scales) != 1:
            raise ValueError(
                f"strides {list(strides)} and up_strides {list(up_strides)} end at scales {sorted(scales)}"
            )
        self.out_channels = sum(up_channels)

    @abstractmethod
    def make_level(self, in_channels: int, out_channels: int, stride: int, num_blocks: int) -> nn.Sequential:
        """Return a level that starts with the stride and goes on with ``num_blocks`` blocks."""

    def forward(self, bev: Tensor) -> Tensor:
        """Map ``[B, in_channels, Y, X]`` to ``[B, sum(up_channels), Y', X']``, in channels-last memory."""
        bev = bev.contiguous(memory_format=torch.channels_last)
        outputs = []
        for level, neck in zip(self.levels, self.necks, strict=True):
            bev = level(bev)
            outputs.append(neck(bev))
        return torch.cat(outputs, dim=1)


def make_neck(in_channels: int, out_channels: int, stride: float) -> nn.Sequential:
    """Return the part of the neck that brings one level's output to the common resolution."""
    convolution, kernel = (nn.ConvTranspose2d, int(stride)) if stride >= 1 else (nn.Conv2d, round(1 / stride))
    layer = convolution(in_channels, out_channels, kernel, stride=kernel, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels, **NORM), nn.ReLU(inplace=True))
