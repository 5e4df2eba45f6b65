"""Feature pyramids: the one that adds coarse maps to fine ones, and the one that is made of a single map.

Source: FPN (Lin et al., CVPR 2017); ViTDet's simple pyramid (Li et al., ECCV 2022), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS


@MODELS.register_module()
class FPN(BaseModule):
    """Laterals of 1 x 1, the next coarser one added by nearest neighbours, outputs of 3 x 3.

    Args:
        in_channels: of each input, finest first.
        out_channels: of all outputs.
        num_outs: outputs; each beyond the inputs is every second pixel of the one before.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, num_outs: int, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < len(in_channels):
            raise ValueError(f"FPN: num_outs must be at least the number of inputs {len(in_channels)}, got {num_outs}")
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        self.num_outs = num_outs
        for convolution in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return ``num_outs`` maps ``[N, C, h, w]`` for one ``[N, C_l, h, w]`` an input, finest first.

        Raises:
            ValueError: if there is another number of inputs.
        """
        if len(maps) != len(self.laterals):
            raise ValueError(f"FPN: expected {len(self.laterals)} maps, got {len(maps)}")
        merged = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            coarse = F.interpolate(merged[finer + 1], size=merged[finer].shape[-2:], mode="nearest")
            merged[finer] = merged[finer] + coarse
        outputs = [output(x) for output, x in zip(self.outputs, merged, strict=True)]
        return _add_coarser(outputs, self.num_outs)


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """Four scales of one map of stride 16: 4 and 2 times as fine, as it is, half as fine; then every second pixel.

    Args:
        in_channels: of the map.
        out_channels: of all outputs.
        num_outs: outputs, at least 4.
    """

    def __init__(self, in_channels: int, out_channels: int, num_outs: int = 5, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if num_outs < 4:
            raise ValueError(f"SimpleFPN: num_outs must be at least 4, got {num_outs}")
        half, quarter = in_channels // 2, in_channels // 4
        first = nn.ConvTranspose2d(in_channels, half, 2, stride=2)
        second = nn.ConvTranspose2d(half, quarter, 2, stride=2)
        scales = [
            (nn.Sequential(first, ChannelNorm(half), nn.GELU(), second), quarter),
            (nn.ConvTranspose2d(in_channels, half, 2, stride=2), half),
            (nn.Identity(), in_channels),
            (nn.MaxPool2d(2, 2), in_channels),
        ]
        self.scales = nn.ModuleList(scale for scale, _ in scales)
        self.laterals = nn.ModuleList(_conv_norm(channels, out_channels, 1) for _, channels in scales)
        self.outputs = nn.ModuleList(_conv_norm(out_channels, out_channels, 3) for _ in scales)
        self.num_outs = num_outs

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return ``num_outs`` maps ``[N, C, h, w]``, finest first, of the last of ``maps``."""
        parts = zip(self.scales, self.laterals, self.outputs, strict=True)
        return _add_coarser([output(lateral(scale(maps[-1]))) for scale, lateral, output in parts], self.num_outs)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of ``[N, C, H, W]``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]``."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _add_coarser(maps: list[Tensor], count: int) -> list[Tensor]:
    while len(maps) < count:
        maps.append(maps[-1][:, :, ::2, ::2])
    return maps


def _conv_norm(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, ChannelNorm(out_channels))
