"""Learned embeddings of positions: a small network on coordinates.

    embedding = Linear(ReLU(BatchNorm(Linear(position))))

Where many queries share their keys, as overlapping windows of a map do, the same position stands for several keys. It
is then embedded once, and ``CountedNorm`` takes its statistics over the keys by counting it as often as it occurs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import RowNorm


class PositionEmbedding(nn.Sequential):
    """MLP on positions ``[N, dims]``: Linear, BatchNorm, ReLU, Linear -> ``[N, C]``."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__(
            nn.Linear(dims, channels), RowNorm(channels), nn.ReLU(inplace=True), nn.Linear(channels, channels)
        )


class PlainPositionEmbedding(nn.Sequential):
    """MLP on positions ``[..., dims]`` without normalisation: Linear, ReLU, Linear -> ``[..., C]``."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__(nn.Linear(dims, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels))


class CountedPositionEmbedding(nn.Sequential):
    """``PositionEmbedding`` of distinct positions, each of which stands for a number of equal ones."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__(nn.Linear(dims, channels), CountedNorm(channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(
        self,
        positions: Tensor,  # [N, dims]
        counts: Tensor,  # [N]
    ) -> Tensor:  # [N, C]
        """Embed ``positions``; ``counts`` matter to the statistics of training only."""
        first, norm, activation, second = self
        return second(activation(norm(first(positions), counts)))


class CountedNorm(nn.Module):
    """Batch normalisation of rows that occur ``counts`` times each; parameters and buffers are BatchNorm's.

    It is no subclass of torch's BatchNorm on purpose: ``SyncBatchNorm`` would replace it, and knows no counts. Each
    process keeps to its own statistics, which hardly differ: they are those of positions.

    Args:
        channels: width C.
        eps: added to the variance.
        momentum: share of a batch's statistics in the running ones.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        rows: Tensor,  # [N, C]
        counts: Tensor,  # [N]
    ) -> Tensor:  # [N, C]
        """Normalise by the statistics of the batch in training, by the running ones otherwise."""
        if not self.training:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        total, share = counts.sum(), (counts / counts.sum()).to(rows.dtype)
        mean = share @ rows
        variance = share @ (rows - mean).square()
        self._track(mean.detach(), variance.detach() * (total / (total - 1).clamp(min=1)))
        return (rows - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)
        self.num_batches_tracked += 1
