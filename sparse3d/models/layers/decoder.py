"""One layer of a query decoder, norms after the residual sums.

    q = LN1(q + SelfAttention(q + p_q));   q = LN2(q + CrossAttention(q + p_q, m + p_m));   q = LN3(q + FFN(q))

Values carry their position as well as queries and keys do, as in TransFusion and its descendants.

Source: TransFusion (Bai et al., CVPR 2022), section 3.2, after DETR (Carion et al., ECCV 2020).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import PackedAttention

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}
SELF_ATTENTION = ("all", "alone")


class QueryDecoderLayer(nn.Module):
    """Self-attention, cross-attention to a memory, feed-forward network.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        activation: of the feed-forward network, ``"relu"`` or ``"gelu"``.
        self_attention: ``"all"`` lets the queries of a sample attend to each other; ``"alone"`` leaves each query to
            itself, as DSVT's published TransFusion head does by making every query a sequence of its own.
        dropout: rate after each of the three parts and inside the feed-forward network.

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
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if self_attention not in SELF_ATTENTION:
            raise ValueError(f"self_attention must be one of {', '.join(SELF_ATTENTION)}, got {self_attention!r}")
        self.activation = ACTIVATIONS[activation]
        self.alone = self_attention == "alone"
        self.self_attention = PackedAttention(channels, num_heads)
        self.cross_attention = PackedAttention(channels, num_heads)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

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
        queries = self.norm1(queries + self.dropout(self._attend_to_queries(queries + query_positions)))
        seen = self.cross_attention(queries + query_positions, keys, keys, bias)
        queries = self.norm2(queries + self.dropout(seen))
        hidden = self.dropout(self.activation(self.linear1(queries)))
        return self.norm3(queries + self.dropout(self.linear2(hidden)))

    def _attend_to_queries(self, x: Tensor) -> Tensor:
        return self.self_attention.attend_alone(x) if self.alone else self.self_attention(x, x, x)
