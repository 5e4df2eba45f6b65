"""VoVNet with effective squeeze-and-excitation; V2-99 by default.

A block keeps the output of each of its convolutions and concatenates all of them once ("one-shot aggregation").

Source: CenterMask (Lee and Park, CVPR 2020), section 3.4, after VoVNet (Lee et al., CVPR-W 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparse3d.registry import MODELS

from .staged import StagedBackbone


class OneShotAggregation(nn.Module):
    """Convolutions in a chain; input and all their outputs are joined, weighed channel by channel.

    Args:
        in_channels: channels of the input.
        channels: channels of each of the convolutions.
        num_convs: length of the chain.
        out_channels: channels of the output.
        residual: add the input to the output.
    """

    def __init__(self, in_channels: int, channels: int, num_convs: int, out_channels: int, residual: bool) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * num_convs]
        self.convs = nn.ModuleList(_conv(a, channels, 3) for a in widths[:-1])
        self.merge = _conv(sum(widths), out_channels, 1)
        self.excite = nn.Conv2d(out_channels, out_channels, 1)
        self.gate = nn.Hardsigmoid()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]``."""
        outputs = [x]
        for conv in self.convs:
            outputs.append(conv(outputs[-1]))
        merged = self.merge(torch.cat(outputs, dim=1))
        merged = merged * self.gate(self.excite(merged.mean(dim=(2, 3), keepdim=True)))
        return merged + x if self.residual else merged


@MODELS.register_module()
class VoVNet(StagedBackbone):
    """Four stages of strides 4, 8, 16, 32.

    Args:
        stem_channels: of the stem's three convolutions.
        conv_channels: of the convolutions in the blocks of each stage.
        stage_channels: of the stages' outputs.
        num_convs: convolutions of a block.
        num_blocks: blocks of each stage.
        out_stages: stages (from 0) whose output is returned.
        frozen_stages: see ``StagedBackbone``; so the others.
        norm_eval: .
        checkpointing: .
    """

    def __init__(
        self,
        stem_channels: Sequence[int] = (64, 64, 128),
        conv_channels: Sequence[int] = (128, 160, 192, 224),
        stage_channels: Sequence[int] = (256, 512, 768, 1024),
        num_convs: int = 5,
        num_blocks: Sequence[int] = (1, 3, 9, 3),
        out_stages: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        before = [stem_channels[-1], *stage_channels[:-1]]
        stages = [
            _stage(*sizes, num_convs=num_convs, halve=number > 0)
            for number, sizes in enumerate(zip(before, conv_channels, stage_channels, num_blocks, strict=True))
        ]
        super().__init__(
            _stem(stem_channels), stages, out_stages, frozen_stages, norm_eval, checkpointing, init_cfg=init_cfg
        )
        self.out_channels = tuple(stage_channels[stage] for stage in out_stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def _stem(channels: Sequence[int]) -> nn.Sequential:
    first, second, third = channels
    return nn.Sequential(_conv(3, first, 3, stride=2), _conv(first, second, 3), _conv(second, third, 3, stride=2))


def _stage(
    in_channels: int, channels: int, out_channels: int, num_blocks: int, num_convs: int, halve: bool
) -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True) if halve else nn.Identity()
    first = OneShotAggregation(in_channels, channels, num_convs, out_channels, residual=False)
    others = (
        OneShotAggregation(out_channels, channels, num_convs, out_channels, residual=True)
        for _ in range(num_blocks - 1)
    )
    return nn.Sequential(pool, first, *others)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
