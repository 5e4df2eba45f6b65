"""ResNet on a bird's-eye map: a stem of 7 x 7 with stride 2 and no pooling, stages of basic blocks, SECOND's neck.

The neck brings the map itself and the output of every stage back to the map's resolution.

Source: the BEV encoder of BEVDepth (Li et al., AAAI 2023), after BEVDet (Huang et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS

from ..images.resnet import BasicBlock, make_stage
from .second_fpn import SECONDFPN

STEM_STRIDE = 2


@MODELS.register_module()
class ResNetBEVBackbone(BaseModule):
    """Stem, residual stages and a concatenating neck.

    Args:
        in_channels: channels of the map.
        num_blocks: blocks of each stage.
        strides: stride of each stage with respect to the one before, the first one's to the stem.
        channels: width of each stage; the stem has that of the first.
        up_channels: width of the parts of the result: the map's own, then one a stage.

    Raises:
        ValueError: if the lists differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        num_blocks: Sequence[int] = (2, 2, 2),
        strides: Sequence[int] = (1, 2, 2),
        channels: Sequence[int] = (160, 320, 640),
        up_channels: Sequence[int] = (64, 64, 64, 64),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len({len(num_blocks), len(strides), len(channels), len(up_channels) - 1}) != 1:
            raise ValueError("num_blocks, strides and channels need one entry a stage each, up_channels one more")
        convolution = nn.Conv2d(in_channels, channels[0], 7, STEM_STRIDE, padding=3, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        before = [channels[0], *channels[:-1]]
        sizes = zip(before, channels, num_blocks, strides, strict=True)
        self.stages = nn.ModuleList(make_stage(BasicBlock, *each) for each in sizes)
        up_strides = [1, *(STEM_STRIDE * stride for stride in accumulate(strides, mul))]
        self.stride = up_strides[-1]
        self.neck = SECONDFPN([in_channels, *channels], up_strides, up_channels)
        self.out_channels = sum(up_channels)

    def forward(self, bev: Tensor) -> Tensor:
        """Map ``[B, in_channels, Y, X]`` to ``[B, sum(up_channels), Y, X]``, in channels-last memory.

        Raises:
            ValueError: if the map is not divisible by the strides.
        """
        if any(size % self.stride for size in bev.shape[-2:]):
            raise ValueError(f"bev: {list(bev.shape[-2:])} cells (y, x) are not divisible by the stride {self.stride}")
        maps = [bev.contiguous(memory_format=torch.channels_last)]
        x = self.stem(maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        [whole] = self.neck(maps)
        return whole
