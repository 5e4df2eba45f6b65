"""SparseFusion's geometric transfer: image features are told how far away things are, by LiDAR.

    d_0 = ReLU(BN(conv3x3(depth map)))
    m_l = conv3x3(block_l(d_l), image map l);   d_{l+1} = m_l          the first block has stride 1, the others 2

So what a level has been told goes on to the coarser ones.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.depth_maps import FINEST_STRIDE, draw_depth_maps
from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample

from ..features import Features
from ..layers.precision import full_precision
from .branch import ImageBranch

DEPTH_CHANNELS = 2


@MODELS.register_module()
class DepthAwareImageBranch(ImageBranch):
    """Image branch whose features are fused with the depths of the LiDAR points of the key frame.

    Args:
        backbone: see ``ImageBranch``.
        neck: see ``ImageBranch``; its first map has a stride of 4.
        depth: arguments of ``DepthEncoder`` besides the number of levels.
        lag_column: column of the points that is 0 for those of the key frame.
        options: further arguments of ``ImageBranch``.
    """

    def __init__(
        self, backbone: dict, neck: dict, depth: Mapping[str, Any], lag_column: int = 4, **options: Any
    ) -> None:
        super().__init__(backbone, neck, **options)
        self.depth = DepthEncoder(**depth)
        self.lag_column = lag_column

    def forward(self, batch: Batch, samples: Sequence[Sample] = ()) -> Features:
        """Return the fused pyramids of a batch with their cameras.

        Raises:
            ValueError: if the batch has no images or no points.
        """
        features = super().forward(batch, samples)
        if batch.points is None:
            raise ValueError("DepthAwareImageBranch: batch.points is None; give the Preprocessor the config's grid")
        maps = self._draw(batch, CameraGeometry.of(features.cameras, features.image_size))
        fused = self.depth(maps.flatten(0, 1), [level.flatten(0, 1) for level in features.images])
        return replace(features, images=tuple(level.unflatten(0, maps.shape[:2]) for level in fused))

    @full_precision
    def _draw(self, batch: Batch, cameras: CameraGeometry) -> Tensor:
        """Return the depth maps ``[B, N, 2, H, W]`` of the points of the key frame."""
        now = batch.points[:, self.lag_column] == 0
        return draw_depth_maps(batch.points[now, :3], batch.batch_index[now], cameras, FINEST_STRIDE)


class DepthEncoder(nn.Module):
    """Residual network on depth maps that takes image maps in, level by level.

    Args:
        in_channels: of the image maps.
        channels: C, of the results.
        num_levels: image maps.
    """

    def __init__(self, in_channels: int, channels: int, num_levels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(DEPTH_CHANNELS, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.blocks = nn.ModuleList(DepthBlock(channels, stride=2 if number else 1) for number in range(num_levels))
        self.fusions = nn.ModuleList(
            nn.Conv2d(channels + in_channels, channels, 3, padding=1) for _ in range(num_levels)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        depth_maps: Tensor,  # [N, 2, H, W]
        image_maps: Sequence[Tensor],  # L of [N, in_channels, h, w]
    ) -> list[Tensor]:  # L of [N, C, h, w]
        """Fuse depth maps with image maps, finest first, the first of the depth maps' size.

        Raises:
            ValueError: if there is another number of image maps, or a size does not fit.
        """
        if len(image_maps) != len(self.blocks):
            raise ValueError(f"DepthEncoder: expected {len(self.blocks)} image maps, got {len(image_maps)}")
        x, fused = self.stem(depth_maps), []
        for block, fusion, image in zip(self.blocks, self.fusions, image_maps, strict=True):
            x = block(x)
            if x.shape[-2:] != image.shape[-2:]:
                raise ValueError(f"DepthEncoder: an image map is {list(image.shape)} where depth is {list(x.shape)}")
            x = fusion(torch.cat([x, image], dim=1))
            fused.append(x)
        return fused


class DepthBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU; a strided shortcut is a conv1x1 with bias - BN."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C, H / stride, W / stride]``."""
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)
