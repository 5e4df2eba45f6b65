from __future__ import annotations

import pytest
import torch

from sparse3d_ops import Segments, describe_points, voxelize

RANGE, SIZE = (-4.0, -3.0, -2.0, 4.0, 3.0, 2.0), (0.5, 0.75, 1.0)


def test_follows_the_definition() -> None:
    points = torch.rand(200, 5) * torch.tensor([8.0, 6.0, 4.0, 9.0, 1.0]) - torch.tensor([4.0, 3.0, 2.0, 0.0, 0.0])
    found = voxelize(points, torch.zeros(200, dtype=torch.int64), RANGE, SIZE, 1)
    segments = Segments.from_index(found.point_to_voxel, len(found.coords))
    scales = torch.arange(1.0, 13.0)
    described = describe_points(points, found.coords, segments, RANGE[:3], SIZE, with_distance=True, scales=scales)
    for number in range(200):
        voxel = int(found.point_to_voxel[number])
        xyz, (_, z, y, x) = points[number, :3], found.coords[voxel].tolist()
        mean = points[found.point_to_voxel == voxel, :3].mean(dim=0)
        centre = (torch.tensor([x, y, z]) + 0.5) * torch.tensor(SIZE) + torch.tensor(RANGE[:3])
        expected = torch.cat([points[number], xyz - mean, xyz - centre, xyz.norm()[None]]) / scales
        torch.testing.assert_close(described[number], expected, rtol=1e-4, atol=1e-5)


def test_no_point() -> None:
    segments = Segments.from_index(torch.zeros(0, dtype=torch.int64), 0)
    coords = torch.zeros(0, 4, dtype=torch.int32)
    assert describe_points(torch.zeros(0, 5), coords, segments, RANGE[:3], SIZE).shape == (0, 11)


def test_points_without_three_columns_are_refused() -> None:
    segments = Segments.from_index(torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"points: expected \[N, 3 or more\]"):
        describe_points(torch.zeros(2, 2), torch.zeros(1, 4, dtype=torch.int32), segments, RANGE[:3], SIZE)
