"""ResNet-50 and 101 with the stride in the 3 x 3 convolution, as torchvision has them (mmdetection: style "pytorch").

Source: Deep Residual Learning (He et al., CVPR 2016); stride after Facebook's Torch implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparse3d.registry import MODELS

from .staged import StagedBackbone

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolution beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


@MODELS.register_module()
class ResNet(StagedBackbone):
    """Four stages of strides 4, 8, 16, 32.

    Args:
        depth: 50 or 101.
        base_channels: width of the stem; the stages have 4, 8, 16, 32 times as many channels.
        out_stages: stages (from 0) whose output is returned.
        frozen_stages: see ``StagedBackbone``; so the others.
        norm_eval: .
        checkpointing: .

    Raises:
        ValueError: if the depth is another one, or a stage does not exist.
    """

    def __init__(
        self,
        depth: int = 50,
        base_channels: int = 64,
        out_stages: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"ResNet: depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
        widths = [base_channels * 2**stage for stage in range(4)]
        before = [base_channels, *(width * EXPANSION for width in widths[:-1])]
        stages = [
            _stage(*sizes, stride=1 if number == 0 else 2)
            for number, sizes in enumerate(zip(before, widths, BLOCKS[depth], strict=True))
        ]
        super().__init__(
            _stem(base_channels), stages, out_stages, frozen_stages, norm_eval, checkpointing, init_cfg=init_cfg
        )
        self.out_channels = tuple(widths[stage] * EXPANSION for stage in out_stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))


def _stage(in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, channels, stride)
    return nn.Sequential(first, *(Bottleneck(channels * EXPANSION, channels, 1) for _ in range(num_blocks - 1)))
