"""SparseTensor: order, checks, dense and back, union, life time."""

from __future__ import annotations

import gc
import resource
import weakref

import pytest
import torch

from sparse3d_ops import voxelize
from sparse3d_ops.sparse import Sites, SparseTensor, inverse_conv, sparse_conv, submanifold_conv, union

from .cases import sparse_tensor, weights


@pytest.mark.parametrize("shape", [(6, 9, 8), (9, 8)])
def test_dense_and_back(shape) -> None:
    x = sparse_tensor(shape, 3, 3)
    dense = x.dense()
    assert dense.shape == (3, 3, *shape)
    assert dense.ne(0).any(dim=1).sum() == len(x)
    again = SparseTensor.from_dense(dense)
    assert torch.equal(again.indices, x.indices)
    assert torch.equal(again.features, x.features)
    assert (again.spatial_shape, again.batch_size) == (shape, 3)


def test_dense_and_from_dense_are_differentiable() -> None:
    x = sparse_tensor((3, 4, 5), 2)
    assert torch.autograd.gradcheck(lambda f: x.replace_features(f).dense(), x.features.clone().requires_grad_())
    dense = x.dense().requires_grad_()
    (gradient,) = torch.autograd.grad(SparseTensor.from_dense(dense).features.sum(), dense)
    assert torch.equal(gradient, (dense != 0).double())


def test_from_dense_keeps_nan() -> None:
    dense = torch.zeros(1, 2, 2, 2)
    dense[0, 1, 1, 0] = torch.nan
    x = SparseTensor.from_dense(dense)
    assert x.indices.tolist() == [[0, 1, 0]]
    assert x.features[0, 1].isnan()


def test_voxels_are_sites() -> None:
    """What voxelize returns is in the order that a sparse tensor wants."""
    found = voxelize(torch.rand(500, 3), torch.randint(0, 2, (500,)), (0, 0, 0, 1, 1, 1), (0.1, 0.1, 0.1), 2)
    assert len(SparseTensor(torch.ones(len(found.coords), 1), found.coords, (10, 10, 10), 2)) == len(found.coords)


def test_coalesce_sorts_and_sums() -> None:
    x = sparse_tensor()
    order = torch.randperm(len(x))
    rows = torch.cat([order, order[:5]])
    features = x.features[rows].requires_grad_()
    y = SparseTensor.coalesce(features, x.indices[rows], x.spatial_shape, 2)
    assert torch.equal(y.indices, x.indices)
    expected = x.features.clone()
    expected[order[:5]] *= 2
    torch.testing.assert_close(y.features, expected)
    (gradient,) = torch.autograd.grad((y.features * expected).sum(), features)
    torch.testing.assert_close(gradient, expected[rows])


def test_union() -> None:
    a, b, c = (sparse_tensor(seed=seed) for seed in range(3))
    total = union(a, b, c)
    torch.testing.assert_close(total.dense(), a.dense() + b.dense() + c.dense())
    torch.testing.assert_close((a + b).dense(), a.dense() + b.dense())
    assert len(a + b) < len(a) + len(b)
    assert (a + a.replace_features(a.features * 2)).sites is a.sites
    with pytest.raises(ValueError, match="at least one tensor"):
        union()
    with pytest.raises(ValueError, match="one shape, batch size"):
        union(a, sparse_tensor((6, 9, 9)))


def test_rows_must_be_in_order_unique_and_inside() -> None:
    x = sparse_tensor()
    with pytest.raises(ValueError, match=r"another order; SparseTensor\.coalesce"):
        SparseTensor(x.features, x.indices.flip(0), x.spatial_shape, 2)
    with pytest.raises(ValueError, match="1 repeated rows"):
        Sites(x.indices[[0, 0, 1]], x.spatial_shape, 2)
    with pytest.raises(ValueError, match=r"coords\[:, 3\] \(x\): entries must lie in \[0, 8\), got \[0, 8\]"):
        Sites(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 8]]).int(), (6, 9, 8), 1)
    with pytest.raises(ValueError, match=r"coords\[:, 0\] \(b\): entries must lie in \[0, 1\)"):
        Sites(torch.tensor([[1, 0, 0, 0]]).int(), (6, 9, 8), 1)
    with pytest.raises(ValueError, match=r"indices: expected \[\*, 4\] int32, got \[2, 4\] int64"):
        Sites(torch.zeros(2, 4).long(), (6, 9, 8), 1)
    with pytest.raises(ValueError, match=r"spatial_shape: expected extents"):
        Sites(torch.zeros(0, 2).int(), (6,), 1)
    with pytest.raises(ValueError, match=rf"features: expected \[{len(x)}, \*\]"):
        SparseTensor(x.features[1:], x.indices, x.spatial_shape, 2)
    with pytest.raises(ValueError, match="do not fit in int64"):
        Sites(torch.zeros(0, 4).int(), (2**30, 2**30, 2**30), 1)


def test_a_tensor_does_not_change() -> None:
    x = sparse_tensor()
    with pytest.raises(AttributeError):
        x.features = x.features * 2
    y = x.replace_features(torch.zeros(len(x), 7, dtype=torch.float64))
    assert y.sites is x.sites
    assert y.num_channels == 7
    assert x.num_channels == 4


def test_maps_live_as_long_as_their_sites() -> None:
    """Nothing waits for the garbage collector: no reference leads round in a circle."""
    weight = weights(4, (3, 3, 3), 4)
    gc.disable()
    try:
        x = sparse_tensor()
        down = sparse_conv(submanifold_conv(x, weight), weight, None, 2, 1)
        assert sparse_conv(x, weight, None, 2, 1).sites is down.sites
        back = inverse_conv(down, weight)
        gone = [weakref.ref(sites) for sites in (x.sites, down.sites)]
        maps = [weakref.ref(m) for m in (*x.sites._submanifold.values(), down.sites.origin.kernel_map)]
        del x, down, back
        assert [reference() for reference in (*gone, *maps)] == [None] * 4
    finally:
        gc.enable()


def test_a_thousand_passes_leave_nothing_behind() -> None:
    """Strided, inverse and submanifold layers with their graph; tensors and memory after 100 and 1,000 passes."""
    weight = weights(4, (3, 3), 4, torch.float32).requires_grad_()
    indices = sparse_tensor((40, 40)).indices

    def step() -> None:
        x = SparseTensor(torch.ones(len(indices), 4), indices, (40, 40), 2)
        down = sparse_conv(submanifold_conv(x, weight), weight, None, 2, 1)
        inverse_conv(submanifold_conv(down, weight), weight).features.sum()

    def measure() -> tuple[int, int]:
        tensors = sum(type(item) is torch.Tensor for item in gc.get_objects())
        return tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            step()
        tensors, peak = measure()
        for _ in range(900):
            step()
        tensors_after, peak_after = measure()
    finally:
        gc.enable()
    assert tensors_after == tensors
    assert peak_after - peak < 10_000  # kilobytes; a pass has some 50 of maps
