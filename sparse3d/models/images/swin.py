"""Swin Transformer, as mmdetection has it; the tiny one by default.

    x ← x + attention(LN(x)),   x ← x + W2 GELU(W1 LN(x))
    attention = softmax(q kᵀ / √d + b[position of the key relative to the query] + mask) v,  within a window

Every second block moves the grid up and left by half a window before it is cut; what comes around the edges is kept
apart by a mask of -100. Grids are padded with zeros, after the norm, to whole windows, and padding is attended to like
any token. Four neighbours become one token between stages; their channels are interleaved (channel, then row, then
column), where Microsoft's own weights have them one after the other.

Source: Swin Transformer (Liu et al., ICCV 2021), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.registry import MODELS

from ..layers.drop_path import DropPath
from .staged import StagedBackbone
from .windows import join_windows, pad_to_windows, split_windows

ANOTHER_REGION = -100.0


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of ``size`` x ``size`` tokens, on a grid that is moved by ``shift``."""

    def __init__(self, channels: int, num_heads: int, size: int, shift: int) -> None:
        super().__init__()
        self.num_heads, self.size, self.shift = num_heads, size, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.position_bias = nn.Parameter(torch.zeros((2 * size - 1) ** 2, num_heads))
        self.register_buffer("relative", relative_positions(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens of ``[N, H, W, C]`` attend to those of their window."""
        height, width = x.shape[1:3]
        padded = pad_to_windows(x, self.size)
        moved = padded.roll((-self.shift, -self.shift), dims=(1, 2)) if self.shift else padded
        joined = join_windows(self._attend(moved), self.size, padded.shape[2])
        back = joined.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else joined
        return back[:, :height, :width]

    def _attend(self, grid: Tensor) -> Tensor:
        """Return windows ``[N, windows, tokens, C]`` of a grid of whole windows."""
        windows = split_windows(grid, self.size)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(2, 3).flatten(1, 2)  # [N, windows * heads, tokens, d]
            for part in self.qkv(windows).chunk(3, dim=-1)
        )
        bias = self._bias(*grid.shape[1:3], windows.shape[1]).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, bias[None])
        return self.out(attended.unflatten(1, (-1, self.num_heads)).transpose(2, 3).flatten(3))

    def _bias(self, height: int, width: int, num_windows: int) -> Tensor:
        """Return what is added to the logits, ``[windows * heads, tokens, tokens]``."""
        bias = self.position_bias[self.relative].permute(2, 0, 1).expand(num_windows, -1, -1, -1)
        if self.shift:
            bias = bias + shift_mask(height, width, self.size, self.shift, bias.device)[:, None]
        return bias.flatten(0, 1)


class SwinBlock(nn.Module):
    """Attention in windows and the feed-forward network."""

    def __init__(self, channels: int, num_heads: int, hidden: int, size: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, num_heads, size, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Update the tokens ``[N, H, W, C]``."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Images -> tokens ``[N, H / 4, W / 4, C]``; a part of a patch is filled up with zeros."""

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, channels, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(channels)
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``[N, 3, H, W]``."""
        padding = (0, -images.shape[3] % self.patch_size, 0, -images.shape[2] % self.patch_size)
        return self.norm(self.projection(F.pad(images, padding)).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Four neighbouring tokens -> one with twice the channels; where a neighbour is missing, zeros stand in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, H, W, C]`` to ``[N, H / 2, W / 2, 2 C]``, rounded up."""
        grid = pad_to_windows(x, 2).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [N, h, 2, w, 2, C]
        return self.reduction(self.norm(grid.permute(0, 1, 3, 5, 2, 4).flatten(3)))


class SwinStage(nn.Module):
    """Merging, in all stages but the first, and blocks; the second, fourth, ... of them move their grid."""

    def __init__(
        self, channels: int, num_heads: int, hidden: int, window_size: int, drop_paths: Sequence[float], merge: bool
    ) -> None:
        super().__init__()
        self.merge = PatchMerging(channels // 2) if merge else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(channels, num_heads, hidden, window_size, window_size // 2 if number % 2 else 0, rate)
            for number, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, H, W, C]``."""
        x = self.merge(x)
        for block in self.blocks:
            x = block(x)
        return x


class OutputNorm(nn.LayerNorm):
    """Layer normalisation of tokens, as a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` of ``[N, H, W, C]``."""
        return super().forward(x).permute(0, 3, 1, 2)


@MODELS.register_module()
class SwinTransformer(StagedBackbone):
    """Four stages of strides 4, 8, 16, 32.

    Args:
        channels: of the first stage; each other one has twice as many as the one before.
        depths: blocks of each stage.
        num_heads: of each stage.
        window_size: side of a window in tokens.
        mlp_ratio: hidden width of the feed-forward network, in channels.
        drop_path: rate at which the last block is left out in training; it grows linearly from 0.
        out_stages: stages (from 0) whose output is returned.
        frozen_stages: see ``StagedBackbone``; so the other one.
        checkpointing: .

    Raises:
        ValueError: if the heads of a stage do not divide its channels, or a stage does not exist.
    """

    def __init__(
        self,
        channels: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: int = 4,
        drop_path: float = 0.2,
        out_stages: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        widths = [channels * 2**stage for stage in range(len(depths))]
        for width, heads in zip(widths, num_heads, strict=True):
            if width % heads:
                raise ValueError(f"SwinTransformer: {width} channels are not divisible by {heads} heads")
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))  # values, on meta too
        stages = [
            SwinStage(width, heads, mlp_ratio * width, window_size, own_rates.tolist(), merge=number > 0)
            for number, (width, heads, own_rates) in enumerate(zip(widths, num_heads, rates, strict=True))
        ]
        super().__init__(
            PatchEmbedding(channels, patch_size=4),
            stages,
            out_stages,
            frozen_stages,
            checkpointing=checkpointing,
            outputs={stage: OutputNorm(widths[stage]) for stage in out_stages if 0 <= stage < len(widths)},
            init_cfg=init_cfg,
        )
        self.out_channels = tuple(widths[stage] for stage in out_stages)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.position_bias, std=0.02)


def relative_positions(size: int) -> Tensor:
    """Return which entry of the position bias each pair of a window's tokens has, int64 ``[tokens, tokens]``.

    Rows are queries. Entries run over differences of rows, then of columns, query minus key, from -(size - 1).
    """
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    rows, columns = (axis.flatten()[:, None] - axis.flatten() + size - 1 for axis in (row, column))
    return rows * (2 * size - 1) + columns


def shift_mask(height: int, width: int, size: int, shift: int, device: torch.device) -> Tensor:
    """Return ``[windows, tokens, tokens]`` of a moved grid: -100 between tokens that were no neighbours, else 0."""
    region_y, region_x = (_regions(extent, size, shift, device) for extent in (height, width))
    regions = split_windows((3 * region_y[:, None] + region_x)[None, :, :, None], size)[0, :, :, 0]
    return (regions[:, :, None] != regions[:, None]) * ANOTHER_REGION


def _regions(extent: int, size: int, shift: int, device: torch.device) -> Tensor:
    """Return 0 before the last window, 1 in its part that stayed at its side, 2 in the part that came around."""
    place = torch.arange(extent, device=device)
    return (place >= extent - size).long() + (place >= extent - shift).long()
