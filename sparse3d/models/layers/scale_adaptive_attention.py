"""Self-attention of boxes that look further or less far: each query and head weighs the distance on the ground.

    score_h(i, j) = q_i · k_j / sqrt(d) - τ_h(i) |c_i - c_j|,      τ(i) = Linear(query i)

Source: SparseBEV (Liu et al., ICCV 2023), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import PackedAttention

WIDEST = 2.0  # τ starts between 0 (sees everything) and this, in 1 / metre


class ScaleAdaptiveAttention(nn.Module):
    """Multi-head self-attention with learned fields of view, the residual sum included.

    Args:
        channels: width C.
        num_heads: attention heads.
        dropout: rate on attention weights and on the output.
        clamp_tau: keep τ at 0 or above. The published weights were trained without: where τ is negative, attention
            grows with the distance.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0, *, clamp_tau: bool = False) -> None:
        super().__init__()
        self.attention = PackedAttention(channels, num_heads, dropout)
        self.tau = nn.Linear(channels, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.clamp_tau = clamp_tau
        nn.init.xavier_uniform_(self.attention.in_proj.weight)
        nn.init.zeros_(self.tau.weight)
        nn.init.uniform_(self.tau.bias, 0.0, WIDEST)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        centers: Tensor,  # [B, Q, 2]
        hidden: Tensor | None = None,  # [Q, Q]
    ) -> Tensor:  # [B, Q, C]
        """Update the queries.

        Args:
            queries: ``[B, Q, C]``.
            centers: where they are on the ground, metres; no gradient flows through the distances.
            hidden: ``[Q, Q]`` bool, True where the row's query must not see the column's.
        """
        tau = self.tau(queries).transpose(1, 2)[..., None]  # [B, heads, Q, 1]
        if self.clamp_tau:
            tau = tau.clamp(min=0)
        bias = -tau * ground_distances(centers.detach())[:, None]
        if hidden is not None:
            bias = bias.masked_fill(hidden, -torch.inf)
        return queries + self.dropout(self.attention(queries, queries, queries, bias))


def ground_distances(centers: Tensor) -> Tensor:
    """Return the distances ``[B, Q, Q]`` of points ``[B, Q, 2]``."""
    return (centers[:, :, None] - centers[:, None]).square().sum(dim=-1).sqrt()
