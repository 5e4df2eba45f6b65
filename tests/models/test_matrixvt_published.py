"""MatrixVT's configs: the official checkpoint's names and shapes, the size, the sizes of what flows, the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from sparse3d.checkpoints import load_converted, matrixvt
from sparse3d.config import load_config
from sparse3d.datasets.transforms import build_pipeline
from sparse3d.encoding.ring_ray import RingRay
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from tests.conftest import REPOSITORY
from tests.models.test_sparsebev import rig

CONFIGS = REPOSITORY / "configs" / "matrixvt"
PUBLISHED = CONFIGS / "matrixvt_r50_256x704_24e_ema_cbgs.py"


def build(path: Path = PUBLISHED) -> Detector3D:
    with torch.device("meta"):
        return MODELS.build(load_config(path).model)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_official_checkpoint_fits_in_full(prefix: str, shared: Path) -> None:
    [keys] = json.loads((shared / "golden" / "matrixvt" / "state_dict_keys.json").read_text())["configs"].values()
    state = {prefix + key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    load_converted(build(), matrixvt.convert(state))


def test_headings_change_places() -> None:
    weight = torch.tensor([[1.0], [2.0]])
    found = matrixvt.to_our_headings({"head.tasks.0.rot.1.weight": weight, "head.tasks.0.vel.1.weight": weight})
    assert [each[:, 0].tolist() for each in found.values()] == [[2, 1], [1, 2]]


def test_the_published_size() -> None:
    assert sum(p.numel() for p in build().parameters()) / 1e6 == pytest.approx(79.2, abs=0.05)


def test_matrices_of_the_published_size_are_sparse() -> None:
    config = load_config(PUBLISHED)
    low, high, step = config.depth_bins
    depths = torch.arange(low, high, step, dtype=torch.float64)
    cameras = rig(num_frames=1, num_cameras=6)  # 100 degrees each
    matrices = RingRay.build(cameras, (64, 96), 44, depths, Grid.build(config.grid))
    assert matrices.ring.shape == (112, 16384) and matrices.ray.shape == (264, 16384)
    assert 0.005 < matrices.ring.mean() < 0.05 and 0.002 < matrices.ray.mean() < 0.01


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_pipelines_fit_the_model(path: Path) -> None:
    config = load_config(path)
    for pipeline in (config.train_pipeline, config.test_pipeline):
        build_pipeline(pipeline)
    assert all(size % 32 == 0 for size in config.image_size)
    branch = config.model.image_branch
    assert sum(branch.neck.up_channels) == branch.view_transform.in_channels
    assert branch.view_transform.channels == branch.bev_backbone.in_channels
    assert all(cells % 8 == 0 for cells in Grid.build(config.grid).out_shape)


def test_the_recipe() -> None:
    config = load_config(PUBLISHED)
    detector = build()
    wrapper = build_optim_wrapper(detector, config.optim_wrapper)
    assert {group["lr"] for group in wrapper.param_groups} == {2e-4}
    assert "param_scheduler" not in config
    assert not detector.image_branch.backbone.stem[0].weight.requires_grad
    assert detector.image_branch.backbone.stages[0][0].conv1.weight.requires_grad
    [averaging] = [hook for hook in config.custom_hooks if hook.type == "EMAHook"]
    assert averaging.momentum == 1e-3 and averaging.update_buffers
