"""DSVT's configs for Waymo, and its voxel form for nuScenes: published sizes and schedule."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from sparse3d.config import load_config
from sparse3d.registry import MODELS
from tests.conftest import REPOSITORY


def load(name: str):
    return load_config(REPOSITORY / "configs" / "dsvt" / f"{name}.py")


@pytest.mark.parametrize(
    ("name", "backbone", "last_shape"),
    [
        ("dsvt_pillar_waymo", 2_684_928, (1, 468, 468)),
        ("dsvt_voxel_waymo", 3_133_824, (1, 468, 468)),
        ("dsvt_voxel_nuscenes", 1_401_088, (1, 360, 360)),
    ],
)
def test_the_models_build_at_their_size(name: str, backbone: int, last_shape: tuple[int, int, int]) -> None:
    detector = MODELS.build(load(name).model)
    transformer = detector.point_branch.backbone
    assert sum(parameter.numel() for parameter in transformer.parameters()) == backbone
    assert transformer.shapes[-1] == last_shape
    assert detector.head.grid == detector.point_branch.grid


def test_the_waymo_schedule_is_the_published_cycle() -> None:
    """From 3e-5 over a tenth of the epochs to 3e-3, down to 3e-9; beta1 0.95, 0.85, 0.95."""
    config, steps = load("dsvt_pillar_waymo"), 100
    wrapper = build_optim_wrapper(nn.Linear(2, 2), config.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build({**each, "epoch_length": steps}, default_args=dict(optimizer=wrapper.optimizer))
        for each in config.param_scheduler
    ]
    (group,) = wrapper.optimizer.param_groups
    rates, betas = [], []
    for _ in range(24 * steps):
        rates.append(group["lr"])
        betas.append(group["betas"][0])
        for scheduler in schedulers:
            scheduler.step()
    peak = int(2.4 * steps)
    assert max(rates) == pytest.approx(3e-3, rel=1e-3)
    assert abs(int(torch.tensor(rates).argmax()) - peak) <= 1
    assert rates[0] == pytest.approx(3e-5)
    assert 3e-9 <= rates[-1] < 1e-8  # the last step is one before the end
    assert (betas[0], betas[peak], betas[-1]) == pytest.approx((0.95, 0.85, 0.95), abs=2e-3)
