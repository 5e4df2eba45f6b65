"""Packed keys: order, round trip, lookup, and refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops import lookup, num_cells, pack, unique, unpack

SHAPE = (3, 5, 7)
BATCH = 2


def every_voxel(shape: tuple[int, int, int], batch_size: int) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(n) for n in (batch_size, *shape)))


def test_keys_of_all_voxels_count_up_and_come_back() -> None:
    coords = every_voxel(SHAPE, BATCH)
    keys = pack(coords, SHAPE, BATCH)
    assert keys.tolist() == list(range(num_cells(SHAPE, BATCH)))
    back = unpack(keys, SHAPE, BATCH)
    assert back.dtype == torch.int32
    assert torch.equal(back.long(), coords)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.data())
def test_key_order_is_lexicographic_order_even_for_the_largest_grids(data: st.DataObject) -> None:
    shape = (2**20, 2**21, 2**21)  # with two samples the last key is the largest int64
    row = st.tuples(*(st.integers(0, n - 1) for n in (2, *shape)))
    rows = data.draw(st.lists(row, min_size=1, max_size=20))
    keys = pack(torch.tensor(rows, dtype=torch.int32), shape, 2)
    assert [rows[i] for i in keys.argsort(stable=True)] == sorted(rows)
    assert torch.equal(unpack(keys, shape, 2), torch.tensor(rows, dtype=torch.int32))


def test_a_grid_beyond_int64_is_refused() -> None:
    assert num_cells((2**21, 2**21, 2**21), 1) == 2**63
    with pytest.raises(ValueError, match=r"do not fit in int64"):
        pack(torch.zeros(0, 4, dtype=torch.int64), (2**21, 2**21, 2**21), 2)


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 1), (1, 1, 2**31)])
def test_an_impossible_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="spatial_shape"):
        num_cells(shape, 1)


@pytest.mark.parametrize("row", [(2, 0, 0, 0), (0, 3, 0, 0), (0, 0, 5, 0), (0, 0, 0, 7), (0, 0, 0, -1), (-1, 0, 0, 0)])
def test_coordinates_outside_are_refused_by_name(row: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"coords\[:, \d\]"):
        pack(torch.tensor([row]), SHAPE, BATCH)


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coords: expected \[\*, 4\] int32 or int64, got \[2, 3\] int64"):
        pack(torch.zeros(2, 3, dtype=torch.int64), SHAPE, BATCH)
    with pytest.raises(ValueError, match=r"coords: .* float32"):
        pack(torch.zeros(2, 4), SHAPE, BATCH)
    with pytest.raises(ValueError, match=r"keys: entries must lie in \[0, 210\)"):
        unpack(torch.tensor([210]), SHAPE, BATCH)


def test_no_voxels() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int32)
    keys = pack(empty, SHAPE, 0)
    assert keys.shape == (0,)
    assert unpack(keys, SHAPE, 0).shape == (0, 4)
    assert [len(part) for part in unique(keys)] == [0, 0, 0]
    assert lookup(keys, torch.tensor([1, 2])).tolist() == [-1, -1]


def test_unique_sorts_and_counts() -> None:
    keys, rows, counts = unique(torch.tensor([9, 2, 9, 9, 4]))
    assert keys.tolist() == [2, 4, 9]
    assert rows.tolist() == [2, 0, 2, 2, 1]
    assert counts.tolist() == [1, 1, 3]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.sets(st.integers(0, 60)), st.lists(st.integers(-5, 70)))
def test_lookup_equals_a_dictionary(keys: set[int], queries: list[int]) -> None:
    table = {key: row for row, key in enumerate(sorted(keys))}
    rows = lookup(torch.tensor(sorted(keys), dtype=torch.int64), torch.tensor(queries, dtype=torch.int64))
    assert rows.tolist() == [table.get(query, -1) for query in queries]


def test_lookup_refuses_unsorted_keys() -> None:
    with pytest.raises(ValueError, match="strictly ascending"):
        lookup(torch.tensor([1, 1]), torch.tensor([1]))
