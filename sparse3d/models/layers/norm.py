"""Batch normalisation over the rows of a sparse tensor, whose number may be none or one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class RowNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` for ``[N, C]`` rows that also takes N = 0 and N = 1 in training.

    Fewer than two rows have no variance: they are normalised by the running statistics, which then stay as they are.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise ``rows`` ``[N, C]``."""
        if self.training and len(rows) < 2:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)
