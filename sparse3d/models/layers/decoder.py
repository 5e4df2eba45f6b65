"""One layer of a query decoder, norms after the residual sums.

    q = LN1(q + SelfAttention(q + p_q));   q = LN2(q + CrossAttention(q + p_q, m + p_m));   q = LN3(q + FFN(q))

Values carry their position as well as queries and keys do, as in TransFusion and its descendants. What queries look at
differs: every row of a memory, or a few points of images.

Source: TransFusion (Bai et al., CVPR 2022), section 3.2, after DETR (Carion et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import PackedAttention
from .deformable import DeformableAttention, ImageMemory

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}
SELF_ATTENTION = ("all", "alone", "none")


class DecoderLayer(nn.Module):
    """What decoder layers share: self-attention, a look at something else, feed-forward network.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        activation: of the feed-forward network, ``"relu"`` or ``"gelu"``.
        self_attention: ``"all"`` lets the queries of a sample attend to each other; ``"alone"`` leaves each query to
            itself, as DSVT's published TransFusion head does by making every query a sequence of its own; ``"none"``
            leaves the step out, norm included.
        dropout: rate after each of the three parts and inside the feed-forward network.
        attention_dropout: rate of the weights of the self-attention.

    Raises:
        ValueError: if an option is unknown, or the heads do not divide the width.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        ffn_channels: int,
        activation: str = "relu",
        self_attention: str = "all",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if self_attention not in SELF_ATTENTION:
            raise ValueError(f"self_attention must be one of {', '.join(SELF_ATTENTION)}, got {self_attention!r}")
        self.activation = ACTIVATIONS[activation]
        self.alone = self_attention == "alone"
        self.self_attention = None
        if self_attention != "none":
            self.self_attention = PackedAttention(channels, num_heads, attention_dropout)
            self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def update(
        self,
        queries: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, Q, C]
        look: Callable[[Tensor], Tensor],  # [B, Q, C] -> [B, Q, C]
        bias: Tensor | None = None,  # [B, Q, Q]
    ) -> Tensor:  # [B, Q, C]
        """Update queries; ``look`` is the cross-attention, ``bias`` is added to the scores of the self-attention."""
        if self.self_attention is not None:
            x = queries + positions
            seen = self.self_attention.attend_alone(x) if self.alone else self.self_attention(x, x, x, bias)
            queries = self.norm1(queries + self.dropout(seen))
        queries = self.norm2(queries + self.dropout(look(queries + positions)))
        hidden = self.dropout(self.activation(self.linear1(queries)))
        return self.norm3(queries + self.dropout(self.linear2(hidden)))


class QueryDecoderLayer(DecoderLayer):
    """Cross-attention to every row of a memory; arguments as ``DecoderLayer``."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        ffn_channels: int,
        activation: str = "relu",
        self_attention: str = "all",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, num_heads, ffn_channels, activation, self_attention, dropout, attention_dropout)
        self.cross_attention = PackedAttention(channels, num_heads, attention_dropout)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        query_positions: Tensor,  # [B, Q, C]
        memory: Tensor,  # [B, K, C]
        memory_positions: Tensor,  # [B or 1, K, C]
        bias: Tensor | None = None,  # [B, Q, K]
    ) -> Tensor:  # [B, Q, C]
        """Update the queries.

        Args:
            queries: ``[B, Q, C]``.
            query_positions: their embedded positions.
            memory: what they attend to, ``[B, K, C]``.
            memory_positions: its embedded positions.
            bias: ``[B, Q, K]``, added to the scores of the cross-attention; -inf hides a key.
        """
        keys = memory + memory_positions
        return self.update(queries, query_positions, lambda x: self.cross_attention(x, keys, keys, bias))


class DeformableDecoderLayer(DecoderLayer):
    """Cross-attention to a few points of the images of each query's camera.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        num_levels: feature maps.
        num_points: points of a head on a level.
        dropout: see ``DecoderLayer``; that of the self-attention's weights too.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        ffn_channels: int,
        num_levels: int,
        num_points: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, num_heads, ffn_channels, dropout=dropout, attention_dropout=dropout)
        self.cross_attention = DeformableAttention(channels, num_heads, num_levels, num_points)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        query_positions: Tensor,  # [B, Q, C]
        references: Tensor,  # [B, Q, 2]
        views: Tensor,  # [B, Q]
        memory: ImageMemory,
        bias: Tensor | None = None,  # [B, Q, Q]
    ) -> Tensor:  # [B, Q, C]
        """Update the queries.

        Args:
            queries: ``[B, Q, C]``.
            query_positions: their embedded positions.
            references: ``(u, v)`` in parts of the image, around which each query looks.
            views: int64, the camera that it looks through.
            memory: the images, with their embedded positions.
            bias: added to the scores of the self-attention; -inf hides a query from another one.
        """
        return self.update(queries, query_positions, lambda x: self.cross_attention(x, references, views, memory), bias)
