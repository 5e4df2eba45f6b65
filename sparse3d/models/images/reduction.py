"""One narrow map of an image backbone's finest stage."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS


@MODELS.register_module()
class ReduceMap(BaseModule):
    """1 x 1 convolution, BatchNorm, ReLU of the finest map; a neck.

    Args:
        in_channels: width of the map.
        out_channels: width of what is returned.

    Source: Focals Conv-F (Chen et al., CVPR 2022), section 3.4.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map ``[N, out_channels, h, w]`` of maps of which the first is ``[N, in_channels, h, w]``."""
        return [self.norm(self.conv(maps[0])).relu()]
