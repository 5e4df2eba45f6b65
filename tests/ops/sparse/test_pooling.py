"""Pooling against dense pooling over the active sites."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as TF

from sparse3d_ops.sparse import SparseAvgPool2d, SparseAvgPool3d, SparseMaxPool2d, SparseMaxPool3d, inverse_conv

from .cases import at_sites, sparse_tensor, weights

STEPS = [(3, 2, 1), (2, 2, 0), ((2, 3, 1), (1, 2, 2), (1, 1, 0))]


@pytest.mark.parametrize("steps", STEPS)
def test_maximum(steps) -> None:
    x = sparse_tensor((6, 9, 8), 3, batch_size=3)
    features = x.features.clone().requires_grad_()
    out = SparseMaxPool3d(*steps)(x.replace_features(features))
    hidden = x.dense().masked_fill(x.dense() == 0, -torch.inf).requires_grad_()
    expected = at_sites(TF.max_pool3d(hidden, *steps), out)
    torch.testing.assert_close(out.features, expected)
    direction = torch.randn_like(expected)
    (got,) = torch.autograd.grad(out.features, features, direction)
    (want,) = torch.autograd.grad(expected, hidden, direction)
    torch.testing.assert_close(got, at_sites(want, x))


@pytest.mark.parametrize("steps", STEPS)
def test_mean_over_active_sites(steps) -> None:
    x = sparse_tensor((6, 9, 8), 3, batch_size=3)
    features = x.features.clone().requires_grad_()
    out = SparseAvgPool3d(*steps)(x.replace_features(features))
    dense = x.dense().requires_grad_()
    active = (x.dense() != 0).any(dim=1, keepdim=True).double()
    share = TF.avg_pool3d(dense, *steps) / TF.avg_pool3d(active, *steps)
    expected = at_sites(share, out)
    torch.testing.assert_close(out.features, expected)
    direction = torch.randn_like(expected)
    (got,) = torch.autograd.grad(out.features, features, direction)
    (want,) = torch.autograd.grad(expected, dense, direction)
    torch.testing.assert_close(got, at_sites(want, x))


def test_two_dimensions_and_default_stride() -> None:
    x = sparse_tensor((9, 8), 3)
    hidden = x.dense().masked_fill(x.dense() == 0, -torch.inf)
    out = SparseMaxPool2d(2)(x)
    assert out.spatial_shape == (4, 4)
    torch.testing.assert_close(out.features, at_sites(TF.max_pool2d(hidden, 2), out))
    assert SparseAvgPool2d(2)(x).sites is out.sites  # one map for both


def test_pooling_can_be_undone_and_takes_no_site() -> None:
    x = sparse_tensor((6, 9, 8), 3)
    assert inverse_conv(SparseMaxPool3d(3, 2, 1)(x), weights(2, (3, 3, 3), 3)).sites is x.sites
    empty = sparse_tensor((6, 9, 8), 3, density=0.0)
    for pool in (SparseMaxPool3d(2), SparseAvgPool3d(2)):
        assert pool(empty).features.shape == (0, 3)
