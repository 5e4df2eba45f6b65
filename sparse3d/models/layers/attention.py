"""Multi-head attention with packed input projections, as ``nn.MultiheadAttention`` stores them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PackedAttention(nn.Module):
    """Multi-head attention with packed input projections.

    Args:
        channels: width C.
        num_heads: heads; must divide C.
        dropout: rate of attention weights that are dropped in training.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"attention: width {channels} is not divisible by {num_heads} heads")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,  # [B, Q, C]
        key: Tensor,  # [B, K, C]
        value: Tensor,  # [B, K, C]
        bias: Tensor | None = None,  # [B, Q, K] or [B, heads, Q, K]
    ) -> Tensor:  # [B, Q, C]
        """Let queries attend to keys; ``bias`` is added to the scaled scores, of every head or of each, -inf hides."""
        projections = zip(self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True)
        query, key, value = (
            self.split_heads(F.linear(x, weight, shift))
            for x, (weight, shift) in zip((query, key, value), projections, strict=True)
        )
        mask = bias if bias is None or bias.ndim == 4 else bias[:, None]
        mask = None if mask is None else mask.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def attend_alone(self, x: Tensor) -> Tensor:
        """Return what each row of ``[..., C]`` gets when it is the only key: its own value, whatever the scores."""
        return self.out_proj(self.project_values(x))

    def project_matched(self, x: Tensor) -> Tensor:
        """Project what is matched ``[..., C]`` to queries and keys ``[..., 2 C]``."""
        width = 2 * x.shape[-1]
        return F.linear(x, self.in_proj.weight[:width], self.in_proj.bias[:width])

    def project_values(self, x: Tensor) -> Tensor:
        """Project ``[..., C]`` to values ``[..., C]``."""
        width = 2 * x.shape[-1]
        return F.linear(x, self.in_proj.weight[width:], self.in_proj.bias[width:])

    def split_heads(self, x: Tensor) -> Tensor:
        """Return ``[G, T, C]`` as ``[G, heads, T, C / heads]``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
