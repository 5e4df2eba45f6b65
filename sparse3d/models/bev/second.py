"""SECOND's bird's-eye backbone with its neck.

Level l: conv3x3 with the level's stride, then `num_blocks[l]` more of stride 1, each with BatchNorm and ReLU.

Source: SECOND (Yan et al., Sensors 2018), after VoxelNet's region proposal network; CenterPoint uses it.
"""

from __future__ import annotations

from torch import nn

from sparse3d.registry import MODELS

from .pyramid import NORM, BEVPyramid


@MODELS.register_module()
class SECONDBEVBackbone(BEVPyramid):
    """Plain levels and a concatenating neck on a bird's-eye map; arguments as ``BEVPyramid``."""

    def make_level(self, in_channels: int, out_channels: int, stride: int, num_blocks: int) -> nn.Sequential:
        """Return a level: one block with the stride, and ``num_blocks`` more."""
        rest = [_block(out_channels, out_channels, 1) for _ in range(num_blocks)]
        return nn.Sequential(_block(in_channels, out_channels, stride), *rest)


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, **NORM), nn.ReLU(inplace=True))
