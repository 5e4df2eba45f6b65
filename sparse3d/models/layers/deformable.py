"""Multi-scale deformable attention: each query reads a few points of its camera's feature maps.

    value_l = W_v m_l, zero where the map is hidden
    point   = reference + offset / (W_l, H_l)         offset = W_o q, in pixels of level l
    out     = W (Σ_l Σ_p  a_lp · value_l(point_lp))    a = softmax over levels and points of W_a q

Source: Deformable DETR (Zhu et al., ICLR 2021), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse3d_ops import deformable_attention


@dataclass(frozen=True)
class ImageMemory:
    """What queries look at: maps of N cameras in each of B samples.

    Args:
        maps: one ``[B, N, C, H, W]`` a level, finest first.
        hidden: one ``[B, N, H, W]`` bool a level, pixels that read as zero.
    """

    maps: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]


class DeformableAttention(nn.Module):
    """The layer.

    Args:
        channels: width C.
        num_heads: heads; must divide C.
        num_levels: feature maps.
        num_points: points of a head on a level.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, channels: int, num_heads: int, num_levels: int, num_points: int = 4) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"attention: width {channels} is not divisible by {num_heads} heads")
        self.shape = (num_heads, num_levels, num_points)
        count = math.prod(self.shape)
        self.offsets = nn.Linear(channels, 2 * count)
        self.weights = nn.Linear(channels, count)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with equal shares of points that lie in a direction for each head, one pixel apart."""
        num_heads, num_levels, num_points = self.shape
        angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = directions[:, None, None] * torch.arange(1, num_points + 1)[:, None]
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        self.offsets.bias.data = steps.expand(-1, num_levels, -1, -1).flatten().clone()
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        references: Tensor,  # [B, Q, 2]
        views: Tensor,  # [B, Q]
        memory: ImageMemory,
    ) -> Tensor:  # [B, Q, C]
        """Let queries look at the maps of their cameras.

        Args:
            queries: with their positions.
            references: ``(u, v)`` that the offsets start from, in parts of the image: 0 and 1 are its edges.
            views: int64, the camera of each query.
            memory: the maps, with their positions.
        """
        values = [
            self.value(level.movedim(2, -1)).masked_fill(mask[..., None], 0).movedim(-1, 2)
            for level, mask in zip(memory.maps, memory.hidden, strict=True)
        ]
        offsets = self.offsets(queries).float().unflatten(-1, (*self.shape, 2))
        weights = self.weights(queries).float().unflatten(-1, self.shape)
        sizes = offsets.new_tensor([level.shape[:-3:-1] for level in memory.maps])[:, None]  # (W, H)
        locations = references[:, :, None, None, None] + offsets / sizes
        shares = weights.flatten(-2).softmax(dim=-1).view_as(weights)
        return self.out(deformable_attention(values, locations, shares, views))
