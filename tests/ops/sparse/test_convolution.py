"""Convolutions against dense ones on densified input: outputs and all gradients, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as TF
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparse3d_ops.sparse import (
    SparseTensor,
    SubMConv3d,
    inverse_conv,
    sparse_conv,
    sparse_conv_transpose,
    submanifold_conv,
    use_backend,
)

from .cases import (
    BACKENDS,
    at_sites,
    dense_transposed_weight,
    dense_weight,
    reached,
    sparse_tensor,
    weights,
)

EACH = pytest.mark.parametrize("backend", BACKENDS)
CONV = {2: TF.conv2d, 3: TF.conv3d}
TRANSPOSED = {2: TF.conv_transpose2d, 3: TF.conv_transpose3d}


@pytest.fixture(autouse=True)
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def leaves(x: SparseTensor, *tensors: Tensor) -> tuple[SparseTensor, list[Tensor]]:
    """The same tensor and parameters as fresh leaves that want gradients."""
    features = x.features.detach().clone().requires_grad_()
    return x.replace_features(features), [features, *(t.detach().clone().requires_grad_() for t in tensors)]


def check_against_dense(x: SparseTensor, weight: Tensor, bias: Tensor, sparse, dense) -> SparseTensor:
    """Compare outputs at the sites, and gradients of input, weight and bias."""
    sparse_x, wanted = leaves(x, weight, bias)
    out = sparse(sparse_x, *wanted[1:])
    dense_x, given = leaves(x, weight, bias)
    expected = at_sites(dense(dense_x.dense(), *given[1:]), out)
    torch.testing.assert_close(out.features, expected)
    direction = torch.randn_like(expected)
    got = torch.autograd.grad(out.features, wanted, direction)
    for a, b in zip(got, torch.autograd.grad(expected, given, direction), strict=True):
        torch.testing.assert_close(a, b)
    return out


STEPS = [  # kernel size, stride, padding, dilation
    ((3, 3, 3), 2, 1, 1),
    ((3, 3, 3), 2, (0, 1, 1), 1),
    ((3, 1, 1), (2, 1, 1), 0, 1),
    ((5, 5, 5), 2, 2, 1),
    ((2, 2, 2), 2, 0, 1),
    ((3, 3, 3), 1, 1, 1),
    ((1, 1, 1), 1, 0, 1),
    ((1, 1, 1), 2, 0, 1),
    ((1, 2, 3), (1, 3, 2), (0, 1, 2), (1, 2, 2)),
    ((3, 3), 2, 1, 1),
    ((3, 3), 1, 1, 2),
]


@EACH
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), STEPS)
def test_sparse_convolution(backend: str, size, stride, padding, dilation) -> None:
    ndim = len(size)
    x = sparse_tensor((6, 9, 8)[3 - ndim :], 3, batch_size=3)

    def dense(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return CONV[ndim](values, dense_weight(weight), bias, stride, padding, dilation)

    with use_backend(backend):
        weight, bias = weights(5, size, 3), torch.randn(5, dtype=torch.float64)
        out = check_against_dense(
            x, weight, bias, lambda x, w, b: sparse_conv(x, w, b, stride, padding, dilation), dense
        )
    ones = torch.ones(1, *size, 1, dtype=torch.float64)
    assert torch.equal(out.indices, reached(x, lambda values: dense(values, ones, None)))
    assert out.spatial_shape == tuple(dense(x.dense(), weight, None).shape[2:])


@EACH
@pytest.mark.parametrize("size", [(3, 3, 3), (1, 3, 5), (1, 1, 1), (3, 3), (1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_submanifold_convolution(backend: str, size, dilation) -> None:
    ndim = len(size)
    x = sparse_tensor((6, 9, 8)[3 - ndim :], 3, batch_size=3)
    padding = [dilation * (extent // 2) for extent in size]

    def dense(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return CONV[ndim](values, dense_weight(weight), bias, 1, padding, dilation)

    with use_backend(backend):
        weight, bias = weights(5, size, 3), torch.randn(5, dtype=torch.float64)
        out = check_against_dense(x, weight, bias, lambda x, w, b: submanifold_conv(x, w, b, dilation), dense)
    assert out.sites is x.sites


@EACH
@pytest.mark.parametrize(
    ("size", "stride", "padding", "extra", "dilation"),
    [
        ((3, 3, 3), 2, 1, 1, 1),
        ((2, 2, 2), 2, 0, 0, 1),
        ((3, 1, 2), (2, 1, 3), (1, 0, 0), (1, 0, 2), (1, 1, 2)),
        ((3, 3), 2, 1, 0, 1),
    ],
)
def test_transposed_convolution(backend: str, size, stride, padding, extra, dilation) -> None:
    ndim = len(size)
    x = sparse_tensor((4, 5, 4)[3 - ndim :], 3, batch_size=3)

    def dense(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return TRANSPOSED[ndim](
            values, dense_transposed_weight(weight), bias, stride, padding, extra, dilation=dilation
        )

    with use_backend(backend):
        weight, bias = weights(5, size, 3), torch.randn(5, dtype=torch.float64)
        out = check_against_dense(
            x, weight, bias, lambda x, w, b: sparse_conv_transpose(x, w, b, stride, padding, extra, dilation), dense
        )
    ones = torch.ones(1, *size, 1, dtype=torch.float64)
    assert torch.equal(out.indices, reached(x, lambda values: dense(values, ones, None)))


@EACH
@pytest.mark.parametrize("steps", [((3, 3, 3), 2, 1), ((3, 3, 3), 2, (0, 1, 1)), ((2, 2, 2), 2, 0), ((3, 3), 2, 1)])
def test_inverse_convolution(backend: str, steps) -> None:
    """It equals the transposed convolution, read at the sites that the strided one started from."""
    size, stride, padding = steps
    ndim = len(size)
    x = sparse_tensor((7, 9, 11)[3 - ndim :], 3)
    with use_backend(backend):
        down = sparse_conv(x, weights(3, size, 3), None, stride, padding)

        def dense(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            out = values.new_zeros(len(values), len(weight), *x.spatial_shape) + bias.view(-1, *[1] * ndim)
            full = TRANSPOSED[ndim](values, dense_transposed_weight(weight), None, stride, padding)
            crop = tuple(slice(min(a, b)) for a, b in zip(out.shape[2:], full.shape[2:], strict=True))
            return out.index_put(
                tuple(torch.meshgrid(*map(torch.arange, (*out.shape[:2], *full[0, 0][crop].shape)), indexing="ij")),
                full[(slice(None), slice(None), *crop)],
                accumulate=True,
            )

        out = check_against_dense(down, weights(5, size, 3), torch.randn(5, dtype=torch.float64), inverse_conv, dense)
    assert out.sites is x.sites


def test_a_ladder_of_inverse_convolutions() -> None:
    x = sparse_tensor((8, 8, 8), 2)
    weight = weights(2, (3, 3, 3), 2)
    middle = sparse_conv(x, weight, None, 2, 1)
    bottom = submanifold_conv(sparse_conv(middle, weight, None, 2, 1), weight)
    up = inverse_conv(bottom, weight)
    assert up.sites is middle.sites
    assert inverse_conv(up, weight).sites is x.sites
    with pytest.raises(ValueError, match="no map to walk back"):
        inverse_conv(x, weight)
    with pytest.raises(ValueError, match=r"kernel size \(3, 3, 3\)"):
        inverse_conv(middle, weights(2, (1, 3, 3), 2))


@EACH
def test_few_sites(backend: str) -> None:
    """No site, one site, a full block; gradients are zeros and never missing."""
    weight = weights(5, (3, 3, 3), 4)
    bias = torch.randn(5, dtype=torch.float64)

    def dense(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return TF.conv3d(values, dense_weight(weight), bias, 1, 1)

    with use_backend(backend):
        for density in (0.0, 1.0):
            x = sparse_tensor((3, 4, 5), 4, 2, density)
            check_against_dense(x, weight, bias, submanifold_conv, dense)
            check_against_dense(x, weight, bias, lambda x, w, b: sparse_conv(x, w, b, 1, 1), dense)
        one = SparseTensor(torch.randn(1, 4, dtype=torch.float64), torch.tensor([[1, 2, 3, 4]]).int(), (3, 4, 5), 2)
        check_against_dense(one, weight, bias, submanifold_conv, dense)
        none = sparse_tensor((3, 4, 5), 4, 2, 0.0)
        assert len(inverse_conv(sparse_conv(none, weight, None, 2, 1), weights(5, (3, 3, 3), 5))) == 0
        assert len(sparse_conv_transpose(none, weight, bias, 2)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [(1, 1), (5, 16), (17, 130)])
def test_dtypes_and_odd_channels(dtype: torch.dtype, channels) -> None:
    """The error stays within that of rounding 27 products and the result once each."""
    x = sparse_tensor((6, 20, 20), channels[0], 1, 0.3, dtype)
    weight, bias = weights(channels[1], (3, 3, 3), channels[0], dtype), torch.randn(channels[1]).to(dtype)
    wide = x.replace_features(x.features.double())
    expected = submanifold_conv(wide, weight.double(), bias.double()).features
    absolute = submanifold_conv(x.replace_features(wide.features.abs()), weight.double().abs(), bias.double().abs())
    out = submanifold_conv(x, weight, bias).features
    assert out.dtype == dtype
    steps = 2 + (channels[0] * 27 if dtype == torch.float32 else 0)
    assert bool(((out.double() - expected).abs() <= steps * torch.finfo(dtype).eps * absolute.features).all())


def test_half_precision_accumulates_in_float32() -> None:
    """27 taps of 64 channels of ones sum to 1728; bfloat16 sums would stop growing at 256."""
    x = sparse_tensor((3, 3, 3), 64, 1, 1.0, torch.bfloat16)
    ones = x.replace_features(torch.ones_like(x.features))
    out = submanifold_conv(ones, torch.ones(2, 3, 3, 3, 64, dtype=torch.bfloat16))
    assert out.features[13].tolist() == [1728, 1728]


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast(backend: str) -> None:
    x = sparse_tensor((6, 20, 20), 8, 2, 0.3, torch.float32)
    module = SubMConv3d(8, 12, 3)
    with use_backend(backend):
        expected = module(x)
        leaf, (features,) = leaves(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = module(leaf)
        assert out.features.dtype == torch.bfloat16
        torch.testing.assert_close(out.features.float(), expected.features, rtol=0.02, atol=0.02)
        out.features.float().square().sum().backward()
        assert features.grad.dtype == module.weight.grad.dtype == module.bias.grad.dtype == torch.float32
        (reference,) = torch.autograd.grad(module(leaf).features.square().sum(), features)
        assert torch.nn.functional.cosine_similarity(reference.flatten(), features.grad.flatten(), dim=0) > 0.999


def test_threads_change_no_bit() -> None:
    """Outputs and all gradients, over several blocks and runs, twice at each number of threads."""
    x = sparse_tensor((20, 64, 64), 24, 2, 0.3, torch.float32)
    weight, bias = weights(32, (3, 3, 3), 24, torch.float32), torch.randn(32)

    def run() -> list[Tensor]:
        leaf, wanted = leaves(SparseTensor(x.features, x.indices, x.spatial_shape, 2), weight, bias)
        a = submanifold_conv(leaf, *wanted[1:])
        b = sparse_conv(a, weights(16, (3, 3, 3), 32, torch.float32), None, 2, 1)
        direction = torch.randn(b.features.shape, generator=torch.Generator().manual_seed(3))
        return [a.features, b.features, *torch.autograd.grad(b.features, wanted, direction)]

    torch.set_num_threads(1)
    expected = run()
    for count in (1, 2, 2, 3, 7):
        torch.set_num_threads(count)
        for got, want in zip(run(), expected, strict=True):
            assert torch.equal(got, want)
        assert torch.get_num_threads() == count


def test_works_in_inference_mode_and_on_strided_memory() -> None:
    x = sparse_tensor((6, 20, 20), 8, 1, 0.3, torch.float32)
    weight = weights(8, (3, 3, 3), 8, torch.float32)
    expected = submanifold_conv(x, weight).features
    strided = x.replace_features(x.features.repeat_interleave(2, dim=1)[:, ::2])
    turned = weight.movedim(0, -1).contiguous().movedim(-1, 0)
    torch.set_num_threads(2)
    with torch.inference_mode():
        assert torch.equal(submanifold_conv(strided, turned).features, expected)
        assert torch.equal(submanifold_conv(x.replace_features(x.features.clone()), weight).features, expected)


def test_a_gradient_that_is_an_expanded_scalar() -> None:
    x, (features,) = leaves(sparse_tensor())
    submanifold_conv(x, weights(3, (3, 3, 3), 4)).features.sum().backward()
    assert bool(features.grad.abs().sum() > 0)


def test_activation_checkpointing() -> None:
    """A block that is computed again gives the same gradients, and builds no second map."""
    x, (features,) = leaves(sparse_tensor())
    first, second = weights(4, (3, 3, 3), 4), weights(6, (3, 3, 3), 4)

    def block(x: SparseTensor) -> SparseTensor:
        return sparse_conv(submanifold_conv(x, first), second, None, 2, 1)

    plain = block(x)
    expected = torch.autograd.grad(plain.features.square().sum(), features)
    kept = checkpoint(block, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(kept.features.square().sum(), features)[0], expected[0])
    assert kept.sites is plain.sites


@EACH
def test_gradcheck(backend: str) -> None:
    x = sparse_tensor((3, 4, 4), 2, 1, 0.4)
    weight, bias = weights(3, (3, 3, 3), 2).requires_grad_(), torch.randn(3, dtype=torch.float64, requires_grad=True)
    features = x.features.clone().requires_grad_()

    def run(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return sparse_conv(x.replace_features(features), weight, bias, 2, 1).features

    with use_backend(backend):
        assert torch.autograd.gradcheck(run, (features, weight, bias))


def test_refusals() -> None:
    x = sparse_tensor()
    with pytest.raises(ValueError, match=r"weight: expected \[\*, \*, \*, \*, 4\] .* got \[5, 3, 3, 3, 3\]"):
        submanifold_conv(x, weights(5, (3, 3, 3), 3))
    with pytest.raises(ValueError, match=r"weight: expected \[\*, \*, \*, \*, 4\] .* got \[5, 3, 3, 4\]"):
        submanifold_conv(x, weights(5, (3, 3), 4))
    with pytest.raises(ValueError, match=r"bias: expected \[5\]"):
        submanifold_conv(x, weights(5, (3, 3, 3), 4), torch.zeros(4))
    with pytest.raises(ValueError, match="one dtype"):
        submanifold_conv(x, weights(5, (3, 3, 3), 4, torch.float32))
    with pytest.raises(ValueError, match="does not fit"):
        sparse_conv(x, weights(5, (9, 9, 9), 4))
