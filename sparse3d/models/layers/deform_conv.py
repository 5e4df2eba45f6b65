"""Deformable convolution as a layer: the offsets come from an ordinary convolution of the same input.

Source: Deformable Convolutional Networks (Dai et al., ICCV 2017), section 2.1; version 2 (Zhu et al., CVPR 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse3d_ops import deform_conv2d


class DeformConv2d(nn.Module):
    """A deformable convolution that starts as the ordinary one.

    Args:
        in_channels: input width.
        out_channels: output width.
        kernel_size: taps along each side.
        stride: of the output's pixels.
        padding: zeros around the input.
        groups: weight groups.
        offset_groups: groups of channels with offsets of their own.
        modulated: version 2: every tap also has a factor between 0 and 1, 0.5 at the start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        offset_groups: int = 1,
        *,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        self.geometry = dict(stride=stride, padding=padding, groups=groups)
        self.modulated = modulated
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        numbers = offset_groups * kernel_size**2 * (3 if modulated else 2)
        self.offsets = nn.Conv2d(in_channels, numbers, kernel_size, stride, padding)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, O, Y, X]``."""
        offsets, mask = self.offsets(x), None
        if self.modulated:
            count = offsets.shape[1] // 3
            offsets, mask = offsets[:, : 2 * count], offsets[:, 2 * count :].sigmoid()
        return deform_conv2d(x, offsets, self.weight, mask=mask, **self.geometry)
