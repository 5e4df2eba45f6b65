"""The decoder of MV2D: layers with weights of their own, each of which gives classes and boxes.

    q = LN(q + SelfAttention(q + p));   q = LN(q + CrossAttention(q + p, k + p_k, k));   q = LN(q + FFN(q))
    (classes, code) = branches(LN'(q)),      centre = range · sigmoid(logit(reference) + Δ)

References stay as they are from layer to layer.

Source: PETR (Liu et al., ECCV 2022), section 3.3; MV2D (Wang et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import CODE_SIZE

from ..layers.attention import PackedAttention
from .mv2d_memory import Memory

UNTRAINED_SCORE = 0.01


class MV2DDecoderLayer(nn.Module):
    """Self-attention, sparse cross-attention, feed-forward network.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of attention weights, after each of the three parts, and inside the feed-forward network.
    """

    def __init__(self, channels: int, num_heads: int, ffn_channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = PackedAttention(channels, num_heads, dropout)
        self.cross_attention = PackedAttention(channels, num_heads, dropout)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, Q, C]
        memory: Memory,
        hidden: Tensor | None = None,  # [B, Q, Q]
    ) -> Tensor:  # [B, Q, C]
        """Update the queries; ``hidden`` is True where the row must not see the column."""
        placed = queries + positions
        attended = self.self_attention(placed, placed, queries, None if hidden is None else _bias(hidden, queries))
        queries = self.norm1(queries + self.dropout(attended))
        queries = self.norm2(queries + self.dropout(self._look(queries + positions, memory)))
        inner = self.linear2(self.dropout(F.relu(self.linear1(queries))))
        return self.norm3(queries + self.dropout(inner))

    def _look(self, placed: Tensor, memory: Memory) -> Tensor:
        grouped = placed.reshape(memory.keys.shape[0], -1, placed.shape[-1])
        keys = memory.keys + memory.positions
        return self.cross_attention(grouped, keys, memory.keys, _bias(memory.hidden, placed)).view_as(placed)


class Branches(nn.Module):
    """What becomes of the queries of a layer: class logits, and changes of the box.

    Args:
        channels: width C.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(
            *(part for _ in range(2) for part in (nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU())),
            nn.Linear(channels, num_classes),
        )
        self.boxes = nn.Sequential(
            *(part for _ in range(2) for part in (nn.Linear(channels, channels), nn.ReLU())),
            nn.Linear(channels, CODE_SIZE),
        )
        nn.init.constant_(self.classes[-1].bias, -math.log(1 / UNTRAINED_SCORE - 1))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[B, Q, K]`` and ``[B, Q, 10]`` of ``[B, Q, C]``."""
        return self.classes(queries), self.boxes(queries)


def _bias(hidden: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(hidden, dtype=like.dtype).masked_fill(hidden, -torch.inf)
