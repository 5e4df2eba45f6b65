"""The passes over points: each equals its numpy form, whatever the points and their layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.point_kernels import (
    keep_in_range,
    keep_in_range_reference,
    move_points,
    move_points_reference,
    near_boxes,
    place_scan,
    place_scan_reference,
)
from sparse3d_ops import points_in_boxes

reproducible = settings(deadline=None, max_examples=25, derandomize=True)
seeds, sizes = st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 7, 300])
dtypes = st.sampled_from([np.float32, np.float64])


def _points(seed: int, count: int, columns: int = 5, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=(count, columns)).astype(dtype)


def _pose(seed: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3] = np.random.default_rng(seed + 1).normal(size=(3, 4))
    return pose


@reproducible
@given(seeds, sizes, st.sampled_from([0.0, 1.0]), st.sampled_from([[0, 1, 2], [0, 1, 2, 4], [0, 1, 2, 3, 4]]))
def test_place_scan(seed: int, count: int, close: float, use: list[int]) -> None:
    raw = _points(seed, count)
    for extra in (0, 1):
        outs = [np.full((count + 3, len(use) + extra), 7, dtype=np.float32) for _ in range(2)]
        written = [
            function(raw, np.array(use), _pose(seed), close, 0.25, out)
            for function, out in zip((place_scan, place_scan_reference), outs, strict=True)
        ]
        assert written[0] == written[1] <= count
        np.testing.assert_allclose(outs[0], outs[1], rtol=1e-6, atol=1e-6)
        assert (outs[0][count:] == 7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 4])
def test_place_scan_names_the_first_broken_point(value: float, column: int) -> None:
    raw = _points(0, 20)
    raw[[6, 11], column] = value
    out = np.empty((20, 5), dtype=np.float32)
    for function in (place_scan, place_scan_reference):
        assert function(raw, np.arange(4), np.eye(4), 0.0, 0.0, out) == -7


@reproducible
@given(seeds, sizes, dtypes, st.sampled_from([3, 5]))
def test_move_points(seed: int, count: int, dtype: type, columns: int) -> None:
    points = _points(seed, count, columns, dtype)
    moved = move_points(points, _pose(seed))
    assert moved.dtype == dtype
    np.testing.assert_allclose(moved, move_points_reference(points, _pose(seed)), rtol=1e-6, atol=1e-6)


@reproducible
@given(seeds, sizes, dtypes)
def test_keep_in_range(seed: int, count: int, dtype: type) -> None:
    points = np.round(_points(seed, count, 5, dtype))  # many lie on the bounds
    low, high = np.array([-2, -1, -3], dtype), np.array([2, 3, 1], dtype)
    np.testing.assert_array_equal(keep_in_range(points, low, high), keep_in_range_reference(points, low, high))


def test_slices_of_wider_arrays() -> None:
    points, pose = _points(0, 50, 9), _pose(0)
    view = points[::2, 1:6]
    bounds = np.full(3, -1, np.float32), np.full(3, 1, np.float32)
    np.testing.assert_array_equal(move_points(view, pose), move_points(view.copy(), pose))
    np.testing.assert_array_equal(keep_in_range(view, *bounds), keep_in_range(view.copy(), *bounds))


@reproducible
@given(seeds, sizes, st.sampled_from([0, 1, 12]))
def test_near_boxes_miss_none(seed: int, count: int, num_boxes: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform([-9, -9, -1, 0.1, 0.1, 0.5, -4], [9, 9, 1, 6, 3, 2, 4], (num_boxes, 7)).astype(np.float32)
    points = rng.uniform(-12, 12, (count, 4)).astype(np.float32)
    points[: min(count, num_boxes), :3] = boxes[: min(count, num_boxes), :3]
    near = near_boxes(points, boxes)
    inside = points_in_boxes(torch.from_numpy(points[:, :3].copy()), torch.from_numpy(boxes)).numpy() >= 0
    assert set(np.flatnonzero(inside)) <= set(near)
    assert list(near) == sorted(set(near))


def test_near_boxes_spare_the_rest() -> None:
    points = np.random.default_rng(0).uniform(-50, 50, (5000, 3)).astype(np.float32)
    box = np.array([[10, -5, 0, 4, 2, 2, 0.3]], dtype=np.float32)
    assert len(near_boxes(points, box)) < 50
