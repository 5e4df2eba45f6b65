"""Norms folded into convolutions: the same numbers, and no norm left."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from sparse3d.deploy.folding import fold_dense, fold_sparse
from sparse3d.models.layers.norm import RowNorm
from sparse3d.models.points.sparse_layers import SparseResidualBlock, strided_block, submanifold_block
from sparse3d_ops.sparse import SparseSequential, SparseTensor


def worn(module: nn.Module) -> nn.Module:
    """In eval mode and float64, with norms that have seen and learned something."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (norm.running_mean, -1, 1),
                (norm.running_var, 0.1, 4),
                (norm.weight, -2, 2),
                (norm.bias, -1, 1),
            ):
                nn.init.uniform_(tensor, low, high)
    return module.double().eval()


def norms(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_dense_convolutions(kind: type[nn.Module], bias: bool) -> None:
    module = worn(nn.Sequential(nn.Sequential(kind(3, 5, 3, bias=bias), nn.BatchNorm2d(5, eps=1e-3), nn.ReLU())))
    folded, x = deepcopy(module), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    fold_dense(folded)
    assert not norms(folded)
    torch.testing.assert_close(folded(x), module(x), rtol=1e-12, atol=1e-12)


def test_a_norm_that_follows_something_else_stays() -> None:
    module = worn(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5)))
    folded, x = deepcopy(module), torch.randn(1, 3, 5, 5, dtype=torch.float64)
    fold_dense(folded)
    assert len(norms(folded)) == 1
    assert torch.equal(folded(x), module(x))


@pytest.mark.parametrize(
    "module",
    [
        SparseResidualBlock(4),
        SparseSequential(submanifold_block(4, 6), strided_block(6, 3, 3, 2, 1)),
        SparseSequential(submanifold_block(4, 4)[0], RowNorm(4)),
    ],
    ids=["residual", "blocks", "bare"],
)
def test_sparse_convolutions(module: SparseSequential) -> None:
    worn(module)
    folded = deepcopy(module)
    fold_sparse(folded)
    assert not norms(folded)
    dense = torch.randn(1, 4, 5, 6, 7, dtype=torch.float64) * (torch.rand(1, 1, 5, 6, 7) < 0.4)
    x = SparseTensor.from_dense(dense)
    torch.testing.assert_close(folded(x).features, module(x).features, rtol=1e-11, atol=1e-11)
    assert len(folded(x)) > 10
