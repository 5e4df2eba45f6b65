from __future__ import annotations

import pytest

from sparse3d.structures import Grid

NUSCENES = dict(point_range=[-54, -54, -5, 54, 54, 3], voxel_size=[0.3, 0.3, 8], stride=2)


def test_sizes_follow_from_range_and_voxel() -> None:
    grid = Grid.build(NUSCENES)
    assert grid.shape == (1, 360, 360)
    assert grid.bev_shape == (360, 360)
    assert grid.out_shape == (180, 180)
    assert grid.cell_size == (0.6, 0.6)


def test_shape_is_zyx() -> None:
    assert Grid((0, 0, 0, 4, 6, 8), (1, 1, 1)).shape == (8, 6, 4)


def test_published_sizes_are_whole_numbers_of_voxels_despite_rounding() -> None:
    assert Grid((-74.88, -74.88, -2, 74.88, 74.88, 4), (0.32, 0.32, 0.1875)).shape == (32, 468, 468)
    assert Grid((-54, -54, -5, 54, 54, 3), (0.075, 0.075, 0.2)).shape == (40, 1440, 1440)


def test_build_returns_a_grid_unchanged() -> None:
    grid = Grid.build(NUSCENES)
    assert Grid.build(grid) is grid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(point_range=[-54, -54, -5, 54, 54]), "6 numbers"),
        (dict(point_range=[54, -54, -5, -54, 54, 3]), "axis x"),
        (dict(point_range=[-54, float("nan"), -5, 54, 54, 3]), "axis y"),
        (dict(voxel_size=[0.3, 0.3, 0]), "axis z"),
        (dict(voxel_size=[0.35, 0.3, 8]), "whole number"),
        (dict(stride=7), "divisible by stride 7"),
        (dict(stride=0), "stride 0"),
    ],
)
def test_what_is_no_grid_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.build({**NUSCENES, **change})


def test_unresolved_reference_says_how_to_load() -> None:
    with pytest.raises(TypeError, match="load_config"):
        Grid.build("$grid")  # type: ignore[arg-type]
