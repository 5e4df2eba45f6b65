"""Kernel maps obey the rule of geometry.py, and all builders agree in every bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops._numba.kernel_map import PART_ROWS
from sparse3d_ops.sparse import Geometry, KernelMap, Sites, submanifold_conv, use_backend

from .cases import BACKENDS, sparse_tensor, weights

FIELDS = ("inputs", "outputs", "offsets")


def check_rule(kernel_map: KernelMap, fine: Sites, coarse: Sites, geometry: Geometry) -> None:
    """Every pair satisfies fine = stride * coarse + dilation * tap - padding, and no pair is missing."""
    taps = torch.repeat_interleave(geometry.taps(), kernel_map.offsets.diff(), dim=0)
    stride, padding, dilation = map(torch.tensor, (geometry.stride, geometry.padding, geometry.dilation))
    f, c = fine.coords[kernel_map.inputs.long()].long(), coarse.coords[kernel_map.outputs.long()].long()
    assert torch.equal(f[:, 0], c[:, 0])
    assert torch.equal(f[:, 1:], stride * c[:, 1:] + dilation * taps - padding)
    assert kernel_map.num_pairs == count_pairs(fine, coarse, geometry)


def count_pairs(fine: Sites, coarse: Sites, geometry: Geometry) -> int:
    """Pairs by asking for each two sites whether some tap joins them."""
    step = fine.coords[:, None, 1:].long() + torch.tensor(geometry.padding)
    step = step - coarse.coords[None, :, 1:].long() * torch.tensor(geometry.stride)
    tap = step.div(torch.tensor(geometry.dilation), rounding_mode="floor")
    fits = (tap * torch.tensor(geometry.dilation) == step) & (tap >= 0) & (tap < torch.tensor(geometry.kernel_size))
    same = fine.coords[:, None, 0] == coarse.coords[None, :, 0]
    return int((fits.all(dim=2) & same).sum())


def assert_ordered(kernel_map: KernelMap) -> None:
    for start, stop in kernel_map.tap_ranges():
        for rows in (kernel_map.inputs, kernel_map.outputs):
            assert bool((rows[start:stop].diff() > 0).all())


def assert_same(a: KernelMap, b: KernelMap) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert (a.num_inputs, a.num_outputs) == (b.num_inputs, b.num_outputs)


extents = st.tuples(*[st.integers(1, 3)] * 3)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9)),
    size=extents,
    stride=extents,
    padding=st.tuples(*[st.integers(0, 2)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    batch_size=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_strided_maps(shape, size, stride, padding, dilation, batch_size, density, seed) -> None:
    geometry = Geometry(size, stride, padding, dilation)
    x = sparse_tensor(shape, 1, batch_size, density, seed=seed)
    axes = zip(shape, size, padding, dilation, strict=True)
    if any(n + 2 * p < d * (k - 1) + 1 for n, k, p, d in axes):
        with pytest.raises(ValueError, match="does not fit"):
            x.sites.coarsen(geometry)
        return
    made = {}
    for backend in BACKENDS:
        with use_backend(backend):
            made[backend] = Sites(x.indices, shape, batch_size).coarsen(geometry)
    coarse = made["numba"]
    assert torch.equal(coarse.keys, made["reference"].keys)
    assert torch.equal(coarse.indices, made["reference"].indices)
    assert_same(coarse.origin.kernel_map, made["reference"].origin.kernel_map)
    check_rule(coarse.origin.kernel_map, x.sites, coarse, geometry)
    assert_ordered(coarse.origin.kernel_map)
    assert len(torch.unique(coarse.origin.kernel_map.outputs)) == len(coarse)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
    size=extents,
    stride=extents,
    padding=st.tuples(*[st.integers(0, 1)] * 3),
    extra=st.tuples(*[st.integers(0, 1)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_transposed_maps(shape, size, stride, padding, extra, dilation, density, seed) -> None:
    geometry = Geometry(size, stride, padding, dilation)
    x = sparse_tensor(shape, 1, 2, density, seed=seed)
    axes = zip(shape, size, stride, padding, extra, dilation, strict=True)
    if any((n - 1) * s - 2 * p + d * (k - 1) + o + 1 < 1 for n, k, s, p, o, d in axes):
        with pytest.raises(ValueError, match="the output would be"):
            x.sites.refine(geometry, extra)
        return
    made = {}
    for backend in BACKENDS:
        with use_backend(backend):
            made[backend] = Sites(x.indices, shape, 2).refine(geometry, extra)
    fine = made["numba"]
    assert torch.equal(fine.keys, made["reference"].keys)
    assert_same(fine.origin.kernel_map, made["reference"].origin.kernel_map)
    check_rule(fine.origin.kernel_map.transpose(), fine, x.sites, geometry)
    assert_ordered(fine.origin.kernel_map)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9)),
    size=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_submanifold_maps(shape, size, dilation, density, seed) -> None:
    geometry = Geometry.submanifold(3, size, dilation)
    x = sparse_tensor(shape, 1, 3, density, seed=seed)
    maps = {}
    for backend in BACKENDS:
        with use_backend(backend):
            maps[backend] = Sites(x.indices, shape, 3).submanifold_map(geometry)
    assert_same(maps["numba"], maps["reference"])
    check_rule(maps["numba"], x.sites, x.sites, geometry)
    assert_ordered(maps["numba"])
    start, stop = maps["numba"].tap_ranges()[geometry.volume // 2]
    assert torch.equal(maps["numba"].inputs[start:stop], torch.arange(len(x), dtype=torch.int32))


def test_threads_change_no_map() -> None:
    """Maps that are found in several parts, and the definition."""
    x = sparse_tensor((20, 60, 60), 1, 2, 0.3)
    assert len(x) > 2 * PART_ROWS
    with use_backend("reference"):
        expected = x.sites.submanifold_map(Geometry.submanifold(3, 3))
        strided = x.sites.coarsen(Geometry.of(3, 3, 2, 1))
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            fresh = Sites(x.indices, x.spatial_shape, 2)
            assert_same(fresh.submanifold_map(Geometry.submanifold(3, 3)), expected)
            assert_same(fresh.coarsen(Geometry.of(3, 3, 2, 1)).origin.kernel_map, strided.origin.kernel_map)
    finally:
        torch.set_num_threads(before)


def test_a_submanifold_map_lists_its_second_half_when_asked() -> None:
    x = sparse_tensor((6, 9, 8), 3, dtype=torch.float32)
    weight = weights(3, (3, 3, 3), 3, torch.float32).requires_grad_()
    out = submanifold_conv(x, weight).features.sum()
    kernel_map = x.sites.submanifold_map(Geometry.submanifold(3, 3))
    listed = {"inputs", "outputs", "offsets"}
    assert not listed & set(vars(kernel_map))
    out.backward()
    assert listed <= set(vars(kernel_map))
    with use_backend("reference"):
        expected = Sites(x.indices, x.spatial_shape, 2).submanifold_map(Geometry.submanifold(3, 3))
    assert_same(kernel_map, expected)
    assert_same(kernel_map.transpose(), expected.transpose())
    assert (kernel_map.num_taps, kernel_map.num_pairs) == (27, expected.num_pairs)
    assert torch.equal(kernel_map.transpose().table(), expected.transpose().table())


def test_table_and_transpose() -> None:
    x = sparse_tensor()
    kernel_map = x.sites.coarsen(Geometry.of(3, 3, 2, 1)).origin.kernel_map
    table = kernel_map.table()
    assert table.shape == (27, kernel_map.num_outputs)
    taps, outputs = (table >= 0).nonzero(as_tuple=True)
    assert torch.equal(outputs.int(), kernel_map.outputs)
    assert torch.equal(table[taps, outputs], kernel_map.inputs)
    assert kernel_map.table() is table
    back = kernel_map.transpose()
    assert (back.num_inputs, back.num_outputs) == (kernel_map.num_outputs, kernel_map.num_inputs)
    assert torch.equal(back.inputs, kernel_map.outputs)


def test_maps_near_the_ends_of_a_grid_of_almost_2_to_the_63_cells() -> None:
    """Keys reach 2**63 - 1 and coordinates 2**31 - 2; no sum on the way overflows."""
    shape = (2, 2**31 - 1, 2**31 - 1)
    last = 2**31 - 2
    rows = [[0, 0, 0, 0], [0, 0, 0, last], [0, 0, last, last], [0, 1, 0, 0], [0, 1, last, last - 1], [0, 1, last, last]]
    indices = torch.tensor(rows, dtype=torch.int32)
    geometry = Geometry.submanifold(3, 3)
    for backend in BACKENDS:
        with use_backend(backend):
            sites = Sites(indices, shape, 1)
            kernel_map = sites.submanifold_map(geometry)
            check_rule(kernel_map, sites, sites, geometry)
            coarse = sites.coarsen(Geometry.of(3, 3, 2, 1))
            check_rule(coarse.origin.kernel_map, sites, coarse, coarse.origin.kernel_map.geometry)
            with pytest.raises(ValueError, match="do not fit in int64"):
                Sites(indices, shape, 2)
            with pytest.raises(ValueError, match=r"in \[1, 2\*\*31\)"):
                sites.refine(Geometry.of(3, 2, 2), (0, 0, 0))


def test_maps_of_a_grid_of_2_to_the_63_cells() -> None:
    end = 2**21 - 1
    indices = torch.tensor([[0, 0, 0, 0], [0, end, end, end - 1], [0, end, end, end]], dtype=torch.int32)
    geometry = Geometry.submanifold(3, 3)
    for backend in BACKENDS:
        with use_backend(backend):
            sites = Sites(indices, (2**21, 2**21, 2**21), 1)
            assert sites.keys[-1] == 2**63 - 1
            check_rule(sites.submanifold_map(geometry), sites, sites, geometry)
            assert sites.submanifold_map(geometry).num_pairs == 5


def test_sites_of_two_dimensions() -> None:
    geometry = Geometry.of(2, 3, 2, 1)
    flat = sparse_tensor((9, 8), 1)
    layer = Sites(flat.sites.coords, (1, 9, 8), 2)
    assert flat.sites.coarsen(geometry).indices.shape[1] == 3
    assert_same(flat.sites.coarsen(geometry).origin.kernel_map, layer.coarsen(geometry).origin.kernel_map)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, (3, 3)), "kernel_size: expected one or 3 integers of at least 1"),
        ((3, 0), "kernel_size: expected one or 3 integers of at least 1"),
        ((3, 3, 0), "stride: expected one or 3 integers of at least 1"),
        ((2, 3, 1, -1), "padding: expected one or 2 integers of at least 0"),
    ],
)
def test_impossible_geometries(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry.of(*arguments)


def test_even_submanifold_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="needs odd sizes, got 2"):
        Geometry.submanifold(3, 2)
