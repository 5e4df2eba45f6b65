"""Means of points: by the definition, voxel by voxel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops import mean_points


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from([None, 1, 2, 5]), st.integers(0, 1000))
def test_the_definition(num_points: int, num_voxels: int, max_points: int | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, 4, generator=generator, dtype=torch.float64)
    voxel = torch.randint(num_voxels, (num_points,), generator=generator)
    found = mean_points(points, voxel, num_voxels, max_points)
    for number in range(num_voxels):
        own = points[voxel == number][:max_points]
        expected = own.mean(dim=0) if len(own) else torch.zeros(4, dtype=torch.float64)
        torch.testing.assert_close(found[number], expected)


@pytest.mark.parametrize("num_voxels", [0, 3])
def test_no_points(num_voxels: int) -> None:
    found = mean_points(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), num_voxels, 10)
    assert torch.equal(found, torch.zeros(num_voxels, 5))
