"""Stochastic depth: a residual branch is left out for some samples of a training batch.

Source: Deep Networks with Stochastic Depth (Huang et al., ECCV 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero whole samples in training, and scale the others so that the mean stays.

    Args:
        rate: share of the samples that are zeroed, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``[N, ...]``."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)
