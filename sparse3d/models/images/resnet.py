"""ResNet; in bottlenecks the 3 x 3 convolution has the stride, as in torchvision (mmdetection: style "pytorch").

Source: Deep Residual Learning (He et al., CVPR 2016); stride after Facebook's Torch implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sparse3d.registry import MODELS

from ..layers.deform_conv import DeformConv2d
from .staged import StagedBackbone

STRIDES = (1, 2, 2, 2)


class BasicBlock(nn.Module):
    """3 x 3, 3 x 3 convolution beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolution beside a shortcut; the one in the middle may be deformable (version 2)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, deformable: bool = False) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        if deformable:
            self.conv2 = DeformConv2d(channels, channels, 3, stride, padding=1, modulated=True)
        else:
            self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


BLOCKS: dict[int, tuple[type[nn.Module], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


@MODELS.register_module()
class ResNet(StagedBackbone):
    """Four stages of strides 4, 8, 16, 32.

    Args:
        depth: 18, 34, 50 or 101.
        base_channels: width of the stem; stage s (from 0) has 2^s times as many channels, from depth 50 on four times
            more.
        out_stages: stages (from 0) whose output is returned; later ones are not built.
        frozen_stages: see ``StagedBackbone``; so the others.
        norm_eval: .
        checkpointing: .
        norm_learned: .
        deformable_stages: stages (from 0) whose 3 x 3 convolutions are deformable (version 2), of depth 50 on.

    Raises:
        ValueError: if the depth is another one, a stage does not exist, or one without bottlenecks shall be deformable.
    """

    def __init__(
        self,
        depth: int = 50,
        base_channels: int = 64,
        out_stages: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        checkpointing: bool = False,
        norm_learned: bool = True,
        deformable_stages: Sequence[int] = (),
        init_cfg: dict | None = None,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"ResNet: depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
        block, num_blocks = BLOCKS[depth]
        if not set(deformable_stages) <= ({0, 1, 2, 3} if block is Bottleneck else set()):
            raise ValueError(f"ResNet-{depth}: no deformable convolutions in stages {tuple(deformable_stages)}")
        widths = [base_channels * 2**stage for stage in range(4)]
        before = [base_channels, *(width * block.expansion for width in widths[:-1])]
        stages = [
            make_stage(block, *sizes, **(dict(deformable=True) if number in deformable_stages else {}))
            for number, sizes in enumerate(zip(before, widths, num_blocks, STRIDES, strict=True))
            if number <= max(out_stages, default=0)
        ]
        super().__init__(
            _stem(base_channels),
            stages,
            out_stages,
            frozen_stages,
            norm_eval,
            checkpointing,
            norm_learned=norm_learned,
            init_cfg=init_cfg,
        )
        self.out_channels = tuple(widths[stage] * block.expansion for stage in out_stages)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, DeformConv2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                nn.init.zeros_(module.offsets.weight)  # it starts as an ordinary convolution


def _stem(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))


def make_stage(
    block: type[nn.Module], in_channels: int, channels: int, num_blocks: int, stride: int, **options: Any
) -> nn.Sequential:
    """Return blocks of which the first has the stride; the stage's output has ``channels * block.expansion``.

    ``options`` are further arguments of all blocks.
    """
    first = block(in_channels, channels, stride, **options)
    others = (block(channels * block.expansion, channels, 1, **options) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *others)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
