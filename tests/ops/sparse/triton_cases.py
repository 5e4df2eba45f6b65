"""Our Triton kernels against the definition; run by test_triton.py, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from sparse3d_ops.sparse import (
    Geometry,
    Sites,
    SparseConv3d,
    SparseConvTranspose3d,
    SparseInverseConv3d,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
    use_backend,
)
from sparse3d_ops.sparse.backends import triton as backend
from sparse3d_ops.sparse.backends import triton_maps
from sparse3d_ops.sparse.backends.reference import Reference
from sparse3d_ops.sparse.backends.schedule import Schedule
from sparse3d_ops.sparse.kernel_map import KernelMap

from .cases import sparse_tensor

DEVICE = torch.device("cpu" if backend.INTERPRETED else "cuda")
TRITON, REFERENCE = backend.Triton(), Reference()
FIELDS = ("inputs", "outputs", "offsets")


def on_device(x: SparseTensor) -> SparseTensor:
    return SparseTensor(x.features.to(DEVICE), x.indices.to(DEVICE), x.spatial_shape, x.batch_size)


def some(rows: int, channels: int, seed: int = 0) -> SparseTensor:
    """A tensor of exactly so many rows in two samples of a small grid."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(2 * 5 * 7 * 6, generator=generator)[:rows].sort().values
    sites = Sites.from_keys(keys.to(DEVICE), (5, 7, 6), 2)
    return SparseTensor.on(sites, torch.randn(rows, channels, generator=generator).to(DEVICE))


def assert_same(a: KernelMap, b: KernelMap) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.table(), b.table())
    assert (a.num_taps, a.num_inputs, a.num_outputs) == (b.num_taps, b.num_inputs, b.num_outputs)


def assert_same_both_ways(a: KernelMap, b: KernelMap) -> None:
    assert_same(a, b)
    assert_same(a.transpose(), b.transpose())


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.submanifold(3, 3),
        Geometry.submanifold(3, (1, 3, 5), (1, 2, 2)),
        Geometry.of(3, 3, 2, 1),
        Geometry.of(3, 3, 2, (0, 1, 1)),
        Geometry.of(3, (3, 1, 1), (2, 1, 1)),
        Geometry.of(3, (2, 1, 3), 3, 2, (1, 1, 2)),
    ],
    ids=str,
)
def test_maps(geometry: Geometry) -> None:
    x = on_device(sparse_tensor((5, 6, 7), 1, 3, 0.3))
    coords, keys, shape = x.sites.coords, x.sites.keys, x.sites.volume
    coarse = geometry.coarse_shape(shape)
    reached = TRITON.coarse_keys(coords, geometry, coarse, 3)
    assert torch.equal(reached, REFERENCE.coarse_keys(coords, geometry, coarse, 3))
    sites = Sites.from_keys(reached, coarse, 3)
    arguments = (keys, shape, sites.coords, geometry, False)
    assert_same_both_ways(TRITON.match(*arguments), REFERENCE.match(*arguments))
    fine = geometry.fine_shape(shape, (0, 0, 0))
    assert torch.equal(TRITON.fine_keys(coords, geometry, fine, 3), REFERENCE.fine_keys(coords, geometry, fine, 3))


def test_maps_near_the_ends_of_a_grid_of_almost_2_to_the_63_cells() -> None:
    last = 2**31 - 2
    rows = [[0, 0, 0, 0], [0, 0, 0, last], [0, 0, last, last], [0, 1, 0, 0], [0, 1, last, last - 1], [0, 1, last, last]]
    sites = Sites(torch.tensor(rows, dtype=torch.int32, device=DEVICE), (2, 2**31 - 1, 2**31 - 1), 1)
    arguments = (sites.keys, sites.volume, sites.coords, Geometry.submanifold(3, 3), True)
    assert_same_both_ways(TRITON.match(*arguments), REFERENCE.match(*arguments))
    geometry = Geometry.of(3, 3, 2, 1)  # too many cells for a bitmap
    coarse = (sites.coords, geometry, geometry.coarse_shape(sites.volume), 1)
    assert torch.equal(TRITON.coarse_keys(*coarse), REFERENCE.coarse_keys(*coarse))


@pytest.mark.parametrize(
    ("rows", "size", "channels", "out_channels", "dtype"),
    [
        (0, 3, 4, 5, torch.float32),
        (1, 3, 1, 1, torch.float32),
        (33, 3, 5, 16, torch.float32),
        (129, 3, 24, 4, torch.float32),
        (65, (1, 3, 3), 70, 66, torch.float32),
        (31, (5, 5, 3), 3, 2, torch.float32),
        (65, 3, 16, 24, torch.float16),
        (65, 3, 6, 7, torch.bfloat16),
    ],
)
def test_convolution_and_its_gradients(rows: int, size, channels: int, out_channels: int, dtype: torch.dtype) -> None:
    geometry = Geometry.submanifold(3, size)
    x = some(rows, channels)
    arguments = (x.sites.keys, x.sites.volume, x.sites.coords, geometry, True)
    kernel_map = REFERENCE.match(*arguments)
    features = x.features.to(dtype).requires_grad_()
    weight = torch.randn(out_channels, geometry.volume, channels, device=DEVICE).to(dtype).requires_grad_()
    bias = torch.randn(out_channels, device=DEVICE, requires_grad=True)
    out = TRITON.convolve(features, weight, bias, kernel_map)
    assert out.dtype == dtype
    gradient = torch.randn_like(out)
    wide = [part.detach().double().requires_grad_() for part in (features, weight, bias)]
    expected = REFERENCE.convolve(*wide, kernel_map)
    of_wide = torch.autograd.grad(expected, wide, gradient.double())
    of_ours = torch.autograd.grad(out, (features, weight, bias), gradient)
    # what is kept in a half is rounded to it once; sums of up to 70 x 9 products in float32 lose a few of its bits
    step = torch.finfo(dtype).eps
    for ours, exact in zip((out, *of_ours), (expected, *of_wide), strict=True):
        tolerance = max(step, 2e-6) * max(1.0, float(exact.detach().abs().max())) if exact.numel() else 0
        torch.testing.assert_close(ours.double(), exact, rtol=step, atol=tolerance)


def test_neither_the_order_of_rows_nor_the_size_of_tiles_changes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers, whose sums are exact: how the interpreter rounds a product depends on its tile."""
    x = some(150, 8)
    x = x.replace_features((4 * x.features).round())
    weight = (4 * torch.randn(8, 27, 8, device=DEVICE)).round()
    arguments = (x.sites.keys, x.sites.volume, x.sites.coords, Geometry.submanifold(3, 3), True)
    expected = TRITON.convolve(x.features, weight, None, TRITON.match(*arguments))
    assert torch.equal(TRITON.convolve(x.features, weight, None, TRITON.match(*arguments)), expected)
    monkeypatch.setattr(triton_maps, "_schedule", lambda table, geometry: Schedule.of(table, None))
    monkeypatch.setattr(backend.Tile, "of", lambda *_: backend.Tile(16, 16, 16, 4, 2))
    assert torch.equal(TRITON.convolve(x.features, weight, None, TRITON.match(*arguments)), expected)


def test_a_forward_pass_lists_no_pairs() -> None:
    x = some(20, 2)
    with use_backend("triton"):
        coarse = SparseConv3d(2, 3, 3, stride=2, padding=1).to(DEVICE)(x)
        SparseInverseConv3d(3, 2, 3).to(DEVICE)(coarse)
        assert "_listed" not in vars(coarse.sites.origin.kernel_map)
        coarse.features.sum().backward()
        assert "_listed" in vars(coarse.sites.origin.kernel_map)


def test_sites_that_no_tap_reaches_have_the_bias() -> None:
    down = SparseConv3d(2, 3, 1, stride=2, spconv_1x1=False).to(DEVICE)
    up = SparseInverseConv3d(3, 4, 1).to(DEVICE)
    for column, count in ((0, 1), (1, 0)):
        indices = torch.tensor([[0, 0, 0, column], [0, 1, 1, 1]], dtype=torch.int32, device=DEVICE)
        x = SparseTensor(torch.ones(2, 2, device=DEVICE), indices, (3, 3, 3), 1)
        with use_backend("triton"):
            coarse = down(x)
            out = up(coarse).features
        assert len(coarse) == count
        torch.testing.assert_close(out[1], up.bias)
        assert torch.equal(out[0], up.bias) == (count == 0)


def test_a_network_of_all_kinds_of_layers() -> None:
    network = SparseSequential(
        SubMConv3d(4, 6, 3),
        torch.nn.ReLU(),
        SparseConv3d(6, 8, 3, stride=2, padding=1),
        SubMConv3d(8, 8, 3),
        SparseInverseConv3d(8, 5, 3),
        SparseConvTranspose3d(5, 3, 2, stride=2),
    ).to(DEVICE)
    results = {}
    for name in ("reference", "triton"):
        x = some(60, 4)
        features = x.features.requires_grad_()
        with use_backend(name):
            out = network(SparseTensor(features, x.indices, x.spatial_shape, x.batch_size))
        gradients = torch.autograd.grad(out.features.square().mean(), (features, *network.parameters()))
        results[name] = (out.indices, out.features, *gradients)
    for ours, expected in zip(results["triton"], results["reference"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
