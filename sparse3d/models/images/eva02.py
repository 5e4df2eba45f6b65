"""EVA-02: a plain vision transformer with rotary positions, SwiGLU and window attention; the large one by default.

    x ← x + attention(LN(x)),   x ← x + W3 LN(SiLU(W1 y) ∘ W2 y),  y = LN(x)

Keys have no bias. Most blocks attend inside windows; the grid is padded with zeros to whole windows, and padding is
attended to like any token. Positions of a token on an axis of n tokens run from 0 to 16: they are i / n · 16. In global
blocks cosines and sines are computed on a square grid of the configured size, and resized to the grid at hand.

Source: EVA-02 (Fang et al., 2023), section 2; windows as in ViTDet (Li et al., ECCV 2022), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparse3d.registry import MODELS

from ..layers.drop_path import DropPath
from .windows import join_windows, pad_to_windows, split_windows

ROTARY_LENGTH = 16.0  # tokens of an axis in pre-training, which all axes are stretched to
ROTARY_BASE = 10000.0
NORM_EPS = 1e-6
Rotation = tuple[Tensor, Tensor]  # cosines and sines, [tokens, channels of a head]


class RotaryAttention(nn.Module):
    """Multi-head self-attention whose queries and keys are rotated by their position."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(
        self,
        x: Tensor,  # [N, T, C]
        rotation: Rotation,
    ) -> Tensor:  # [N, T, C]
        """Let the tokens of each of N grids attend to each other."""
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(rotate(query, rotation), rotate(key, rotation), value)
        return self.out(attended.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated feed-forward network with a norm before its last layer."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, hidden)
        self.up = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.down = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., C]``."""
        return self.down(self.norm(F.silu(self.gate(x)) * self.up(x)))


class EVA02Block(nn.Module):
    """Attention, in windows of ``window_size`` tokens or global (0), and the feed-forward network."""

    def __init__(self, channels: int, num_heads: int, hidden: int, window_size: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attention = RotaryAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mlp = SwiGLU(channels, hidden)
        self.window_size = window_size
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,  # [N, H, W, C]
        rotation: Rotation,
    ) -> Tensor:  # [N, H, W, C]
        """Update the tokens."""
        x = x + self.drop_path(self._attend(self.norm1(x), rotation))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, rotation: Rotation) -> Tensor:
        height, width = x.shape[1:3]
        size = self.window_size
        if not size:
            return self.attention(x.flatten(1, 2), rotation).view_as(x)
        padded = pad_to_windows(x, size)
        windows = split_windows(padded, size)
        attended = self.attention(windows.flatten(0, 1), rotation).view_as(windows)
        return join_windows(attended, size, padded.shape[2])[:, :height, :width]


@MODELS.register_module()
class EVA02(BaseModule):
    """The backbone; it returns one map.

    Args:
        image_size: side of the square that the rotary positions of global blocks were learned on, in pixels.
        pretrained_size: side of the square that the absolute positions were learned on, in pixels.
        patch_size: side of a token, in pixels.
        channels: width C.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the feed-forward network, in C, rounded down.
        window_size: side of a window in tokens.
        global_blocks: blocks that attend globally.
        drop_path: rate at which the last block is left out in training; it grows linearly from 0.
        frozen_blocks: the first so many blocks and the embedding are not trained; 0 trains all.
        checkpointing: compute blocks again in the backward pass instead of keeping what is inside of them.
    """

    def __init__(
        self,
        image_size: int = 1536,
        pretrained_size: int = 224,
        patch_size: int = 16,
        channels: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 8 / 3,
        window_size: int = 16,
        global_blocks: Sequence[int] = (2, 5, 8, 11, 14, 17, 20, 23),
        drop_path: float = 0.3,
        frozen_blocks: int = 0,
        checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if channels % (4 * num_heads):
            raise ValueError(
                f"EVA02: {channels} channels are no whole number of pairs on two axes of {num_heads} heads"
            )
        self.embedding = nn.Conv2d(3, channels, patch_size, stride=patch_size)
        side = pretrained_size // patch_size
        self.positions = nn.Parameter(torch.zeros(1, 1 + side * side, channels))  # the first was for a class token
        rates = [drop_path * block / max(depth - 1, 1) for block in range(depth)]
        self.blocks = nn.ModuleList(
            EVA02Block(channels, num_heads, int(channels * mlp_ratio), 0 if n in global_blocks else window_size, rate)
            for n, rate in enumerate(rates)
        )
        self.head_channels = channels // num_heads
        self.global_side = image_size // patch_size
        self.window_size, self.frozen_blocks, self.checkpointing = window_size, frozen_blocks, checkpointing
        self.out_channels = (channels,)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for part in self._frozen():
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return ``[N, C, H / patch, W / patch]`` for images ``[N, 3, H, W]``, as a list of one."""
        x = self.embedding(images).permute(0, 2, 3, 1)
        grid = (x.shape[1], x.shape[2])
        x = x + self._positions_on(grid)
        in_window = rotary_table(self.window_size, (self.window_size,) * 2, self.head_channels, x.device)
        everywhere = rotary_table(self.global_side, grid, self.head_channels, x.device)
        for block in self.blocks:
            rotation = in_window if block.window_size else everywhere
            if self.checkpointing and self.training:
                x = checkpoint(block, x, rotation, use_reentrant=False)
            else:
                x = block(x, rotation)
        return [x.permute(0, 3, 1, 2)]

    def _positions_on(self, grid: tuple[int, int]) -> Tensor:
        """Return the absolute positions ``[1, H, W, C]`` on a grid."""
        side = math.isqrt(self.positions.shape[1] - 1)
        square = self.positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if grid != (side, side):
            square = F.interpolate(square.float(), size=grid, mode="bicubic", align_corners=False)
        return square.permute(0, 2, 3, 1)

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        return [self.embedding, self.positions, *self.blocks[: self.frozen_blocks]] if self.frozen_blocks else []

    def train(self, mode: bool = True) -> EVA02:
        """Set the mode; frozen blocks stay in eval mode."""
        super().train(mode)
        for block in self.blocks[: self.frozen_blocks]:
            block.eval()
        return self


def rotary_table(side: int, grid: tuple[int, int], channels: int, device: torch.device) -> Rotation:
    """Return cosines and sines ``[H W, channels]`` float32 of a square of ``side`` tokens, resized to ``grid``.

    The first half of the channels turns with the row, the second with the column; each frequency serves two neighbours.
    """
    half = channels // 2
    frequency = ROTARY_BASE ** (-torch.arange(0, half, 2, device=device).float() / half)
    angle = (torch.arange(side, device=device).float() / side * ROTARY_LENGTH)[:, None] * frequency
    angle = angle.repeat_interleave(2, dim=1)  # [side, half]
    angles = torch.cat([angle[:, None].expand(-1, side, -1), angle[None].expand(side, -1, -1)], dim=-1)
    tables = torch.stack([angles.cos(), angles.sin()])  # [2, side, side, channels]
    if grid != (side, side):
        resized = F.interpolate(tables.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
        tables = resized.permute(0, 2, 3, 1)
    cos, sin = tables.flatten(1, 2)
    return cos, sin


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn neighbouring channels of ``[..., T, C]`` as pairs."""
    cos, sin = (table.to(x.dtype) for table in rotation)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin
