"""Depth and context of image features, by a network that is told the calibration of its camera.

Source: BEVDepth (Li et al., AAAI 2023), sections 4.2 and 4.3; the pyramid of dilations after DeepLab v3 (Chen et al.,
2017), the gates after squeeze-and-excitation (Hu et al., CVPR 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse3d.encoding.calibration import NUM_CODES

from ..layers.deform_conv import DeformConv2d
from ..layers.norm import RowNorm
from .resnet import BasicBlock

DILATIONS = (6, 12, 18)


class DepthNet(nn.Module):
    """Logits of depth bins, and context features.

    Args:
        in_channels: of the image features.
        mid_channels: width of everything between.
        context_channels: C.
        num_bins: D.
        dropout: of the pyramid of dilations.
    """

    def __init__(
        self, in_channels: int, mid_channels: int, context_channels: int, num_bins: int, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1), nn.BatchNorm2d(mid_channels), nn.ReLU(inplace=True)
        )
        self.code_norm = RowNorm(NUM_CODES)
        self.context_gate, self.depth_gate = CameraGate(mid_channels), CameraGate(mid_channels)
        self.context = nn.Conv2d(mid_channels, context_channels, 1)
        self.depth = nn.Sequential(
            *(BasicBlock(mid_channels, mid_channels) for _ in range(3)),
            DilatedPyramid(mid_channels, dropout),
            DeformConv2d(mid_channels, mid_channels, 3, padding=1, groups=4),
            nn.Conv2d(mid_channels, num_bins, 1),
        )

    def forward(
        self,
        x: Tensor,  # [N, in_channels, h, w]
        codes: Tensor,  # [N, 27]
    ) -> tuple[Tensor, Tensor]:  # [N, D, h, w], [N, C, h, w]
        """Return depth logits and context; ``codes`` are those of ``calibration_codes``."""
        x, codes = self.reduce(x), self.code_norm(codes)
        return self.depth(self.depth_gate(x, codes)), self.context(self.context_gate(x, codes))


class CameraGate(nn.Module):
    """Channels weighted by what the calibration says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(NUM_CODES, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels))
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels))

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Weigh ``[N, C, h, w]`` by ``codes`` ``[N, 27]``."""
        return x * self.gate(self.mlp(codes)).sigmoid()[:, :, None, None]


class DilatedPyramid(nn.Module):
    """Convolutions of four dilations and the mean of the image, concatenated and mixed."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_conv_norm(channels, channels, 1)])
        self.branches.extend(_conv_norm(channels, channels, 3, dilation) for dilation in DILATIONS)
        self.mean = nn.Sequential(nn.Linear(channels, channels, bias=False), RowNorm(channels), nn.ReLU(inplace=True))
        self.mix = _conv_norm(channels * (len(self.branches) + 1), channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, h, w]``."""
        parts = [branch(x) for branch in self.branches]
        parts.append(self.mean(x.mean(dim=(2, 3)))[:, :, None, None].expand_as(x))
        return self.dropout(self.mix(torch.cat(parts, dim=1)))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
