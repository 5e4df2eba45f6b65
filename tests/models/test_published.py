"""The published sizes of DSVT, and the configs of this repository."""

from __future__ import annotations

import pytest

from sparse3d.config import load_config
from sparse3d.models import DSVT
from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from tests.conftest import REPOSITORY

SHIFTS = ((0, 0, 0), (0, 6, 6))
WIDE = dict(channels=192, num_heads=8, ffn_channels=384, shifts=SHIFTS, hybrid_factor=(1, 2, 2))
WAYMO = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)


def num_parameters(module: DSVT) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_waymo_pillar_has_the_published_size() -> None:
    stages = [dict(**WIDE, num_blocks=4, set_size=36, window_shape=(1, 12, 12))]
    assert num_parameters(DSVT(Grid(WAYMO, (0.32, 0.32, 6.0)), stages)) == 2_684_928


def test_waymo_voxel_has_the_published_size() -> None:
    stages = [
        dict(**WIDE, num_blocks=1, set_size=48, window_shape=(depth, 12, 12), stride=(stride, 1, 1))
        for depth, stride in ((32, 1), (8, 4), (2, 4), (1, 2))
    ]
    backbone = DSVT(Grid(WAYMO, (0.32, 0.32, 0.1875)), stages)
    assert backbone.shapes[-1] == (1, 468, 468)
    assert num_parameters(backbone) == 3_133_824


@pytest.mark.parametrize(
    "name", ["dsvt/dsvt_pillar_nuscenes", "dsvt/dsvt_pillar_centerhead_nuscenes", "demo/pillar_demo"]
)
def test_the_models_of_the_configs_build(name: str) -> None:
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    detector = MODELS.build(config.model)
    scale = detector.point_branch.bev_backbone.out_channels
    assert next(detector.head.shared.parameters()).shape[1] == scale
    assert detector.head.grid == detector.point_branch.grid
