"""Mixing sampled features by matrices that each query makes for itself, over channels and then over points.

    x ← ReLU(LN(x M)),   x ← ReLU(LN(S x)),   query + Linear(x)         M [C/G, C/G],  S [P', P]  of each group

LN is over points and channels together, without parameters. A query's matrices are far larger than the query, so they
are made for some queries at a time, and again in the backward pass.

Source: AdaMixer (Gao et al., CVPR 2022), section 3.3, as in SparseBEV (Liu et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class AdaptiveMixing(nn.Module):
    """Channel mixing, then point mixing, the residual sum included.

    Args:
        channels: width C.
        num_groups: groups G that the channels are split into.
        in_points: points P of a group.
        out_points: points P' after the mixing.
        queries_at_once: queries of the batch whose matrices exist at the same time.
        recompute: make them again in the backward pass instead of keeping all of them for it.
    """

    def __init__(
        self,
        channels: int,
        num_groups: int,
        in_points: int,
        out_points: int = 128,
        queries_at_once: int = 256,
        *,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        self.width = channels // num_groups
        self.num_groups, self.in_points, self.out_points = num_groups, in_points, out_points
        self.queries_at_once, self.recompute = queries_at_once, recompute
        self.sizes = [self.width * self.width, in_points * out_points]
        self.generator = nn.Linear(channels, num_groups * sum(self.sizes))
        self.out_proj = nn.Linear(num_groups * out_points * self.width, channels)
        nn.init.zeros_(self.generator.weight)

    def forward(
        self,
        sampled: Tensor,  # [B, Q, G, P, C / G]
        queries: Tensor,  # [B, Q, C]
    ) -> Tensor:  # [B, Q, C]
        """Return the queries after they took in what they saw."""
        parts = zip(
            sampled.flatten(0, 1).split(self.queries_at_once),
            queries.flatten(0, 1).split(self.queries_at_once),
            strict=True,
        )
        mix = self._mix_again if self.recompute and torch.is_grad_enabled() else self._mix
        return queries + torch.cat([mix(*part) for part in parts]).view_as(queries)

    def _mix(self, sampled: Tensor, queries: Tensor) -> Tensor:
        """Mix ``[N, G, P, C / G]`` for queries ``[N, C]``."""
        made = self.generator(queries).unflatten(1, (self.num_groups, -1))
        channel_matrix, point_matrix = made.split(self.sizes, dim=2)
        x = sampled @ channel_matrix.unflatten(2, (self.width, self.width))
        x = F.relu(F.layer_norm(x, x.shape[-2:]))
        x = point_matrix.unflatten(2, (self.out_points, self.in_points)) @ x
        x = F.relu(F.layer_norm(x, x.shape[-2:]))
        return self.out_proj(x.flatten(1))

    def _mix_again(self, sampled: Tensor, queries: Tensor) -> Tensor:
        return checkpoint(self._mix, sampled, queries, use_reentrant=False, preserve_rng_state=False)
