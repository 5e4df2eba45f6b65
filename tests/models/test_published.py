"""The published sizes of DSVT, and the configs of this repository."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from sparse3d.config import load_config
from sparse3d.models import DSVT
from sparse3d.registry import MODELS, TRANSFORMS
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


@pytest.mark.parametrize("name", ["dsvt/dsvt_pillar_nuscenes", "dsvt/dsvt_pillar_centerhead_nuscenes"])
def test_the_transforms_of_the_configs_exist(name: str) -> None:
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    steps = [*config.train_pipeline, *config.test_pipeline]
    while steps:
        step = steps.pop()
        assert TRANSFORMS.get(step.type) is not None, step.type
        steps += step.get("transforms", [])


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(2, 6), nn.Linear(2, 2)


def test_the_published_recipe_is_one_cycle_without_the_packed_projections() -> None:
    """Rise by half a cosine to 5e-3 over 40 %, fall to 5e-8; beta1 the other way; what has no rate keeps none."""
    config = load_config(REPOSITORY / "configs" / "dsvt" / "dsvt_pillar_nuscenes_published_recipe.py")
    module = _Attention()
    wrapper = build_optim_wrapper(module, config.optim_wrapper)
    frozen, learning = (
        next(group for group in wrapper.param_groups if any(each is layer.weight for each in group["params"]))
        for layer in (module.in_proj, module.out_proj)
    )
    steps = 5  # an epoch
    schedulers = [
        PARAM_SCHEDULERS.build({**each, "epoch_length": steps}, default_args=dict(optimizer=wrapper.optimizer))
        for each in config.param_scheduler
    ]
    rates, betas = [], []
    for _ in range(20 * steps):
        rates.append(learning["lr"])
        betas.append(learning["betas"][0])
        assert frozen["lr"] == 0
        for scheduler in schedulers:
            scheduler.step()
    peak = 8 * steps
    rise, fall = torch.linspace(0, torch.pi, peak + 1), torch.linspace(0, torch.pi, 12 * steps + 1)
    up = 5e-4 + (5e-3 - 5e-4) * (1 - rise.cos()) / 2
    down = 5e-8 + (5e-3 - 5e-8) * (1 + fall.cos()) / 2
    expected = torch.cat([up, down[1:]])[: len(rates)]
    torch.testing.assert_close(torch.tensor(rates), expected, rtol=2e-3, atol=1e-7)  # the peak is reached a step late
    assert (betas[0], betas[peak], betas[-1]) == pytest.approx((0.95, 0.85, 0.95), abs=1e-3)
