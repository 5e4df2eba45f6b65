"""Random sparse tensors, and dense convolution as the oracle of sparse convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d_ops.sparse import SparseTensor

BACKENDS = ("reference", "numba")


def sparse_tensor(
    shape: Sequence[int] = (6, 9, 8),
    channels: int = 4,
    batch_size: int = 2,
    density: float = 0.2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> SparseTensor:
    """A tensor of random sites and features; the last sample of a batch of three or more is empty."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(batch_size, *shape, generator=generator) < density
    if batch_size > 2:
        active[-1] = False
    indices = active.nonzero().int()
    features = torch.randn(len(indices), channels, generator=generator, dtype=torch.float64).to(dtype)
    return SparseTensor(features, indices, shape, batch_size)


def weights(out_channels: int, size: Sequence[int], in_channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A weight ``[out, (kz,) ky, kx, in]``."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(out_channels, *size, in_channels, generator=generator, dtype=torch.float64).to(dtype)


def dense_weight(weight: Tensor) -> Tensor:
    """The same weight for ``torch.nn.functional.conv2d`` or ``conv3d``."""
    return weight.movedim(-1, 1)


def dense_transposed_weight(weight: Tensor) -> Tensor:
    """The same weight for ``conv_transpose2d`` or ``conv_transpose3d``."""
    return weight.movedim(-1, 0)


def at_sites(dense: Tensor, x: SparseTensor) -> Tensor:
    """Rows of ``[B, C, (Z,) Y, X]`` at the sites of a tensor."""
    return dense.movedim(1, -1)[tuple(x.indices.long().T)]


def reached(x: SparseTensor, convolve) -> Tensor:
    """The sites ``[M, 1 + ndim]`` that a dense convolution of ones reaches from those of ``x``."""
    ones = x.replace_features(torch.ones_like(x.features[:, :1])).dense()
    return (convolve(ones)[:, 0] > 0).nonzero().int()
