"""Voxelization against its reference, a literal loop, and recorded voxels of the published encoders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops import grid_shape, voxelize, voxelize_hard
from sparse3d_ops._numba import voxelize as kernels
from sparse3d_ops.voxelize import voxelize_hard_reference, voxelize_reference

RANGE = (-6.0, -4.5, -2.0, 6.0, 4.5, 1.0)
SIZE = (0.3, 0.3, 0.5)
SHAPE = (6, 30, 40)
BOTH = pytest.mark.parametrize("function", [voxelize, voxelize_reference])
BOTH_HARD = pytest.mark.parametrize("function", [voxelize_hard, voxelize_hard_reference])


def cloud(count: int, batch_size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of which some lie outside; the last sample of the batch is empty."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 4, generator=generator) * torch.tensor([14.0, 11.0, 4.0, 1.0])
    points[:, :3] -= torch.tensor([7.0, 5.5, 2.5])
    return points, torch.randint(0, max(1, batch_size - 1), (count,), generator=generator)


def literal(points: torch.Tensor, batch_index: torch.Tensor) -> list[tuple[int, int, int, int] | None]:
    """The cell of each point by the rule of architecture.md, one number at a time, in float32."""
    cells = []
    for point, sample in zip(points.float().numpy(), batch_index.tolist(), strict=True):
        cell = []
        for axis in range(3):
            low, high, size = np.float32(RANGE[axis]), np.float32(RANGE[axis + 3]), np.float32(SIZE[axis])
            inside = low <= point[axis] < high
            cell.append(min(math.floor((point[axis] - low) / size), SHAPE[2 - axis] - 1) if inside else None)
        cells.append(None if None in cell else (sample, cell[2], cell[1], cell[0]))
    return cells


@BOTH
def test_equals_the_literal_rule(function) -> None:
    points, batch_index = cloud(500, 3)
    voxels = function(points, batch_index, RANGE, SIZE, 3)
    cells = literal(points, batch_index)
    assert voxels.coords.dtype == torch.int32
    assert [tuple(row) for row in voxels.coords.tolist()] == sorted({cell for cell in cells if cell})
    assert voxels.point_to_voxel.dtype == torch.int64
    for cell, row in zip(cells, voxels.point_to_voxel.tolist(), strict=True):
        assert (row == -1) if cell is None else (tuple(voxels.coords[row].tolist()) == cell)
    assert None in cells


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.075, 0.1, 0.3, 0.32, 1 / 3]), st.integers(1, 2000))
def test_backends_agree_in_every_bit_at_cell_borders(seed: int, size: float, count: int) -> None:
    """Points within a few units in the last place of a border, where rounding decides."""
    generator = np.random.default_rng(seed)
    low = float(generator.uniform(-80, 80))
    borders = np.float32(low) + generator.integers(-1, count + 2, (300, 3)).astype(np.float32) * np.float32(size)
    for _ in range(2):
        borders = np.where(generator.random(borders.shape) < 0.5, np.nextafter(borders, np.float32(np.inf)), borders)
    points, batch_index = torch.from_numpy(borders), torch.zeros(300, dtype=torch.int64)
    bounds = (low, low, low, *(low + count * size,) * 3)
    fast, slow = (f(points, batch_index, bounds, (size,) * 3, 1) for f in (voxelize, voxelize_reference))
    assert torch.equal(fast.coords, slow.coords)
    assert torch.equal(fast.point_to_voxel, slow.point_to_voxel)
    assert fast.coords.numel() == 0 or (fast.coords.min() >= 0 and fast.coords.max() < count)


@BOTH
@pytest.mark.parametrize("size", [0.05, 0.075, 0.1, 0.32])
def test_the_upper_bound_is_outside_and_all_below_it_inside(function, size: float) -> None:
    count = 1440
    upper = np.float32(-54.0 + count * size)
    below = np.nextafter(upper, np.float32(-np.inf))
    points = torch.tensor([[-54.0, 0, 0], [float(below), 0, 0], [float(upper), 0, 0]])
    bounds = (-54.0, -1.0, -1.0, -54.0 + count * size, 1.0, 1.0)
    voxels = function(points, torch.zeros(3, dtype=torch.int64), bounds, (size, 2, 2), 1)
    assert voxels.coords[:, 3].tolist() == [0, count - 1]
    assert voxels.point_to_voxel.tolist() == [0, 1, -1]


@BOTH
def test_points_outside_z_can_go_to_the_nearest_layer(function) -> None:
    points = torch.tensor([[0, 0, -1e30], [0, 0, 1e30], [0, 0, -2.0], [0, 0, 1.0], [99.0, 0, 0]])
    index = torch.zeros(5, dtype=torch.int64)
    voxels = function(points, index, RANGE, SIZE, 1, keep_outside_z=True)
    assert voxels.coords[:, 1].tolist() == [0, 5]
    assert voxels.point_to_voxel.tolist() == [0, 1, 0, 1, -1]
    assert function(points, index, RANGE, SIZE, 1).point_to_voxel.tolist() == [-1, -1, 0, -1, -1]


@BOTH
def test_empty_one_point_and_all_outside(function) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert function(torch.zeros(0, 3), none, RANGE, SIZE, 2).coords.shape == (0, 4)
    assert function(torch.zeros(0, 3), none, RANGE, SIZE, 0).coords.shape == (0, 4)
    one = function(torch.full((1, 3), 0.1), none.new_tensor([1]), RANGE, SIZE, 3)
    assert one.coords.tolist() == [[1, 4, 15, 20]]
    outside = function(torch.full((4, 3), 50.0), none.new_zeros(4), RANGE, SIZE, 1)
    assert outside.coords.shape == (0, 4)
    assert outside.point_to_voxel.tolist() == [-1] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_rounded_to_float32_first(dtype: torch.dtype) -> None:
    points, batch_index = cloud(400, 3)
    voxels = voxelize(points.to(dtype), batch_index, RANGE, SIZE, 3)
    expected = voxelize(points.to(dtype).float(), batch_index, RANGE, SIZE, 3)
    assert torch.equal(voxels.coords, expected.coords)
    assert torch.equal(voxels.point_to_voxel, expected.point_to_voxel)


def test_strided_inputs_and_threads_change_nothing() -> None:
    points, batch_index = cloud(40_000, 4)
    expected = voxelize(points, batch_index, RANGE, SIZE, 4)
    strided_points = points.repeat_interleave(2, dim=1)[:, ::2]
    strided_index = batch_index.repeat_interleave(3)[::3]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            voxels = voxelize(strided_points, strided_index, RANGE, SIZE, 4)
            assert torch.equal(voxels.coords, expected.coords)
            assert torch.equal(voxels.point_to_voxel, expected.point_to_voxel)
    finally:
        torch.set_num_threads(threads)


def test_a_grid_too_large_for_a_bitmap_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    points, batch_index = cloud(400, 3)
    expected = voxelize(points, batch_index, RANGE, SIZE, 3)
    monkeypatch.setattr(kernels, "MAX_BITMAP_CELLS", 10)
    monkeypatch.setattr(kernels, "rank_in_bitmap", None)
    assert torch.equal(voxelize(points, batch_index, RANGE, SIZE, 3).coords, expected.coords)


@pytest.mark.parametrize("function", [voxelize, voxelize_reference, voxelize_hard, voxelize_hard_reference])
def test_refusals_name_the_tensor(function) -> None:
    caps = (5, 5) if "hard" in function.__name__ else ()
    points, batch_index = cloud(10, 2)
    bad = points.clone()
    bad[3, 0], bad[5, 2] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"points\[:, :3\]: 2 of 10 rows hold NaN or infinity"):
        function(bad, batch_index, RANGE, SIZE, 2, *caps)
    with pytest.raises(ValueError, match=r"points: expected \[N, 3 or more\]"):
        function(points[:, :2], batch_index, RANGE, SIZE, 2, *caps)
    with pytest.raises(ValueError, match=r"batch_index: expected \[10\] int64"):
        function(points, batch_index[:9], RANGE, SIZE, 2, *caps)
    with pytest.raises(ValueError, match=r"batch_index: entries must lie in \[0, 2\)"):
        function(points, batch_index + 2, RANGE, SIZE, 2, *caps)
    with pytest.raises(ValueError, match=r"axis x: range .* voxels"):
        function(points, batch_index, RANGE, (0.7, 0.3, 0.5), 2, *caps)
    points[:, 3] = math.nan
    function(points, batch_index, RANGE, SIZE, 2, *caps)


def test_grid_shape() -> None:
    assert grid_shape((-54, -54, -5, 54, 54, 3), (0.075, 0.075, 0.2)) == (40, 1440, 1440)
    assert grid_shape((-74.88, -74.88, -2, 74.88, 74.88, 4), (0.32, 0.32, 6)) == (1, 468, 468)
    for bounds, size in [((0, 0, 0, 1, 1, 0), (1, 1, 1)), ((0, 0, 0, 1, 1, 1), (1, 1, 0)), ((0,) * 5, (1,) * 3)]:
        with pytest.raises(ValueError, match="range"):
            grid_shape(bounds, size)


def literal_hard(points: torch.Tensor, batch_index: torch.Tensor, max_points: int, max_voxels: int) -> dict:
    """The documented rule, one point after the other."""
    slots: dict[tuple[int, ...], list[torch.Tensor]] = {}
    opened: dict[int, int] = {}
    refused = set()
    for cell, point in zip(literal(points, batch_index), points, strict=True):
        if cell is None or cell in refused:
            continue
        if cell not in slots:
            if opened.get(cell[0], 0) == max_voxels:
                refused.add(cell)
                continue
            opened[cell[0]] = opened.get(cell[0], 0) + 1
            slots[cell] = []
        if len(slots[cell]) < max_points:
            slots[cell].append(point)
    return slots


@BOTH_HARD
@pytest.mark.parametrize(("max_points", "max_voxels"), [(1, 1), (3, 40), (10, 100_000)])
def test_hard_voxels_equal_the_literal_rule(function, max_points: int, max_voxels: int) -> None:
    points, batch_index = cloud(3000, 3)
    points[:, :3] *= 0.4
    voxels = function(points, batch_index, RANGE, SIZE, 3, max_points, max_voxels)
    expected = literal_hard(points, batch_index, max_points, max_voxels)
    assert [tuple(row) for row in voxels.coords.tolist()] == sorted(expected)
    assert voxels.num_points.tolist() == [len(expected[key]) for key in sorted(expected)]
    assert voxels.voxels.shape == (len(expected), max_points, 4)
    for row, key in enumerate(sorted(expected)):
        held = len(expected[key])
        assert torch.equal(voxels.voxels[row, :held], torch.stack(expected[key]))
        assert not voxels.voxels[row, held:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_hard_voxels_keep_dtype_and_no_graph(dtype: torch.dtype) -> None:
    points, batch_index = cloud(2000, 3)
    points = points.to(dtype).requires_grad_()
    fast, slow = (f(points, batch_index, RANGE, SIZE, 3, 4, 500) for f in (voxelize_hard, voxelize_hard_reference))
    assert fast.voxels.dtype == dtype
    assert not fast.voxels.requires_grad
    assert torch.equal(fast.voxels, slow.voxels)
    assert torch.equal(fast.num_points, slow.num_points)


@BOTH_HARD
def test_hard_voxels_of_nothing(function) -> None:
    voxels = function(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), RANGE, SIZE, 2, 3, 4)
    assert voxels.coords.shape == (0, 4)
    assert voxels.voxels.shape == (0, 3, 5)
    assert voxels.num_points.shape == (0,)
    with pytest.raises(ValueError, match="max_points: must be at least 1, got 0"):
        function(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), RANGE, SIZE, 2, 0, 4)


@BOTH
@pytest.mark.parametrize("case", ["vfe_pillar_a", "vfe_voxel3d_a"])
def test_recorded_voxels_of_the_published_encoders(function, case: str, shared: Path) -> None:
    folder = shared / "golden" / "dsvt"
    config = json.loads((folder / f"{case}.json").read_text())["config"]
    arrays = np.load(folder / f"{case}.npz")
    points = torch.from_numpy(arrays["in/points"])
    voxels = function(
        points[:, 1:],
        points[:, 0].long(),
        config["point_cloud_range"],
        config["voxel_size"],
        2,
        keep_outside_z=case == "vfe_pillar_a",
    )
    recorded = arrays["out/voxel_coords"]
    order = np.lexsort(recorded.T[::-1])
    assert np.array_equal(voxels.coords.numpy(), recorded[order])
