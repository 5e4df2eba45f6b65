"""Positions of the pixels of feature maps, embedded: the ray that a pixel sees, gated by what it shows, and its place.

    position = MLP(logits of the ray's points in the range) · sigmoid(gate(features)) + MLP(sine(view, y, x))

Rays and places: `encoding/pixel_rays.py`.

Source: PETR (Liu et al., ECCV 2022), section 3.2; the gate after PETRv2 (Liu et al., ICCV 2023), section 3.4; MV2D
(Wang et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparse3d.encoding.pixel_rays import PixelRays
from sparse3d.encoding.rois import Views


class PositionEncoding(nn.Module):
    """The embedding of a map of stride ``stride``.

    Args:
        channels: width C.
        position_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, which points are taken relative to.
        stride: pixels of the image in a pixel of the map.
        num_depths: D.
    """

    def __init__(self, channels: int, position_range: Sequence[float], stride: int = 16, num_depths: int = 64) -> None:
        super().__init__()
        self.pixels = PixelRays(tuple(position_range), stride, num_depths, channels)
        self.rays = _two_layers(3 * num_depths, 4 * channels, channels)
        self.places = _two_layers(3 * channels // 2, 4 * channels, channels)
        self.gate = _two_layers(channels, channels, channels)

    def forward(
        self,
        features: Tensor,  # [B, V, C, h, w]
        views: Views,
    ) -> Tensor:  # [B, V, C, h, w]
        """Return the embedded positions of all pixels."""
        shape = features.shape[3:]
        rays, places = (part(views, shape).to(features.dtype) for part in (self.pixels.rays, self.pixels.places))
        return self.embed(features, rays, places)

    def embed(
        self,
        features: Tensor,  # [B, V, C, h, w]
        rays: Tensor,  # [B, V, 3 D, h, w]
        places: Tensor,  # [B, V, 3 C / 2, h, w]
    ) -> Tensor:  # [B, V, C, h, w]
        """Return ``forward`` for the rays and places of the pixels."""
        gate = self.gate(features.flatten(0, 1)).sigmoid()
        embedded = self.rays(rays.flatten(0, 1)) * gate + self.places(places.flatten(0, 1))
        return embedded.view(features.shape)


def _two_layers(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden_channels, 1), nn.ReLU(), nn.Conv2d(hidden_channels, out_channels, 1)
    )
