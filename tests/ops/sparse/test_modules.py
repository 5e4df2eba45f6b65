"""Modules: parameters, the rule for kernels of one tap, sequences, shared maps."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from torch import nn

from sparse3d_ops.sparse import (
    SparseConv2d,
    SparseConv3d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseModule,
    SparseSequential,
    SparseTensor,
    SubMConv2d,
    SubMConv3d,
    inverse_conv,
    sparse_conv,
    sparse_conv_transpose,
    submanifold_conv,
)
from sparse3d_ops.sparse.backends.numba import Numba

from .cases import sparse_tensor


def test_modules_are_the_functions_with_parameters() -> None:
    for ndim, sub, conv, up, back in (
        (2, SubMConv2d, SparseConv2d, SparseConvTranspose2d, SparseInverseConv2d),
        (3, SubMConv3d, SparseConv3d, SparseConvTranspose3d, SparseInverseConv3d),
    ):
        x = sparse_tensor((6, 9, 8)[3 - ndim :], 4, dtype=torch.float32)
        sub, conv, up, back = sub(4, 5, 3, dilation=2), conv(4, 5, 3, 2, 1), up(5, 6, 2, 2, bias=False), back(5, 4, 3)
        assert sub.weight.shape == (5, *[3] * ndim, 4)
        assert up.bias is None
        down = conv(x)
        for module_out, function_out in (
            (sub(x), submanifold_conv(x, sub.weight, sub.bias, 2)),
            (down, sparse_conv(x, conv.weight, conv.bias, 2, 1)),
            (up(down), sparse_conv_transpose(down, up.weight, None, 2)),
            (back(down), inverse_conv(down, back.weight, back.bias)),
        ):
            assert module_out.sites is function_out.sites or torch.equal(module_out.indices, function_out.indices)
            assert torch.equal(module_out.features, function_out.features)


def test_parameters_are_initialised_as_those_of_a_dense_convolution() -> None:
    torch.manual_seed(0)
    module, dense = SubMConv3d(64, 64, 3), nn.Conv3d(64, 64, 3)
    bound = 1 / math.sqrt(64 * 27)
    for a, b in ((module.weight, dense.weight), (module.bias, dense.bias)):
        assert a.abs().max() <= bound
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.2)


@pytest.mark.parametrize("make", [SubMConv3d, SparseConv3d])
def test_kernels_of_one_tap_read_their_weight_as_spconv_does(make) -> None:
    x = sparse_tensor(channels=4, dtype=torch.float32)
    faithful, plain = make(4, 6, 1), make(4, 6, 1, spconv_1x1=False)
    plain.load_state_dict(faithful.state_dict())
    rows = x.features
    torch.testing.assert_close(faithful(x).features, rows @ faithful.weight.view(4, 6) + faithful.bias)
    torch.testing.assert_close(plain(x).features, rows @ plain.weight.view(6, 4).T + plain.bias)


def test_a_strided_kernel_of_one_tap_is_an_ordinary_one() -> None:
    x = sparse_tensor(channels=4, dtype=torch.float32)
    module = SparseConv3d(4, 6, 1, stride=2)
    out = module(x)
    even = (x.indices[:, 1:] % 2 == 0).all(dim=1)
    torch.testing.assert_close(out.features, x.features[even] @ module.weight.view(6, 4).T + module.bias)


class Residual(SparseModule):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = SparseSequential(SubMConv3d(channels, channels, 3, bias=False), nn.BatchNorm1d(channels), nn.ReLU())

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x + self.body(x)


def test_a_backbone_builds_each_map_once() -> None:
    """Two residual blocks at each of two resolutions, and back: two submanifold maps and one strided one."""
    net = SparseSequential(
        SubMConv3d(4, 8, 3),
        Residual(8),
        SparseSequential(SparseConv3d(8, 8, 3, 2, 1), nn.BatchNorm1d(8), nn.ReLU()),
        Residual(8),
        Residual(8),
        SparseInverseConv3d(8, 8, 3),
        Residual(8),
    )
    x = sparse_tensor(channels=4, dtype=torch.float32)
    with patch.object(Numba, "match", autospec=True, side_effect=Numba.match) as match:
        out = net(x)
    assert match.call_count == 3
    assert out.sites is x.sites
    out.features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_modules_move_and_print() -> None:
    module = SparseSequential(SubMConv3d(4, 8, (1, 3, 3)), SparseConv3d(8, 8, 3, 2, (0, 1, 1), bias=False)).double()
    x = sparse_tensor(channels=4).to("cpu")
    assert module(x).features.dtype == torch.float64
    assert "4, 8, (1, 3, 3), bias=True" in repr(module)
    assert "stride=(2, 2, 2), padding=(0, 1, 1)" in repr(module)
    assert "batch_size=2" in repr(x)
