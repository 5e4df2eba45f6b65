"""SECOND's neck by itself: maps of several resolutions, brought to one and concatenated.

Source: SECOND (Yan et al., Sensors 2018), after VoxelNet's region proposal network; BEVDepth uses it on images too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS

from .pyramid import make_neck


@MODELS.register_module()
class SECONDFPN(BaseModule):
    """One convolution a map, with BatchNorm and ReLU, see ``pyramid.py``; the results are concatenated.

    Args:
        in_channels: of each map.
        up_strides: upsampling of each map; below 1 it is reduced.
        up_channels: width of each map's part of the result.

    Raises:
        ValueError: if the lists differ in length.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        up_strides: Sequence[float],
        up_channels: Sequence[int],
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len({len(in_channels), len(up_strides), len(up_channels)}) != 1:
            raise ValueError("SECONDFPN: in_channels, up_strides and up_channels need one entry a map each")
        sizes = zip(in_channels, up_channels, up_strides, strict=True)
        self.necks = nn.ModuleList(make_neck(*each) for each in sizes)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the one map ``[N, sum(up_channels), h, w]``.

        Raises:
            ValueError: if there is another number of maps.
        """
        if len(maps) != len(self.necks):
            raise ValueError(f"SECONDFPN: expected {len(self.necks)} maps, got {len(maps)}")
        return [torch.cat([neck(each) for neck, each in zip(self.necks, maps, strict=True)], dim=1)]
