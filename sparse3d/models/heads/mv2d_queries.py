"""Queries of 2D boxes: from what a region shows, and the camera that it is, to a point in space.

    (u, v, d) = MLP(features, K'),     p = inverse(K' lidar2cam) (u d, v d, d, 1)

Source: MV2D (Wang et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 5000.0  # of what goes into the last layers: intrinsics of tiny regions are huge
CAMERA = 16  # numbers of K'
UNTRAINED_STD = 0.001


class QueryGenerator(nn.Module):
    """Predicts where the object of a region is.

    Args:
        channels: width C of the features.
        fc_channels: width of the layer on the pooled features.
        hidden_channels: widths of the layers that know the camera too.
    """

    def __init__(self, channels: int, fc_channels: int = 1024, hidden_channels: tuple[int, int] = (512, 256)) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.linear = nn.Linear(channels, fc_channels)
        first, second = hidden_channels
        self.encoder = nn.Sequential(
            nn.Linear(fc_channels + CAMERA, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
        )
        self.center = nn.Linear(second, 3)
        nn.init.normal_(self.center.weight, std=UNTRAINED_STD)
        nn.init.zeros_(self.center.bias)

    def forward(
        self,
        features: Tensor,  # [R, C, P, P]
        camera_features: Tensor,  # [R, 16]
    ) -> Tensor:  # [R, 3]
        """Return ``(u, v, d)``: cells from the middle of the first one, and metres."""
        pooled = F.relu(self.convolution(features)).mean(dim=(2, 3))
        known = torch.cat([F.relu(self.linear(pooled)), camera_features], dim=1)
        return self.center(self.encoder(known.clamp(-LIMIT, LIMIT)))


def lift(
    centers: Tensor,  # [..., 3]
    to_lidar: Tensor,  # [..., 4, 4]
) -> Tensor:  # [..., 3]
    """Return the points of the LiDAR frame that lie at ``(u, v)`` and depth d of cameras.

    Args:
        centers: ``(u, v, d)``.
        to_lidar: the inverse of what maps ``(x, y, z, 1)`` to ``(u d, v d, d, 1)``.
    """
    depth = centers[..., 2:]
    image = torch.cat([centers[..., :2] * depth, depth, torch.ones_like(depth)], dim=-1)
    return (to_lidar @ image[..., None])[..., :3, 0]
