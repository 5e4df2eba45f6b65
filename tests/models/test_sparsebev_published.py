"""SparseBEV's configs: the official checkpoints' names and shapes, the size, the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from sparse3d.checkpoints import load_converted, sparsebev
from sparse3d.config import load_config
from sparse3d.datasets.transforms import build_pipeline
from sparse3d.registry import MODELS
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs" / "sparsebev"
OFFICIAL = [
    "r50_nuimg_704x256",
    "r50_nuimg_704x256_400q_36ep",
    "r101_nuimg_1408x512",
    "vov99_dd3d_1600x640_trainval_future",
    "vit_eva02_1600x640_trainval_future",
]


def build(name: str):
    with torch.device("meta"):
        return MODELS.build(load_config(CONFIGS / f"sparsebev_{name}.py").model)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_checkpoints_fit_in_full(name: str, shared: Path) -> None:
    keys = json.loads((shared / "golden" / "sparsebev" / "state_dict_keys.json").read_text())["configs"][name]
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    load_converted(build(name), sparsebev.convert(state))


def test_the_published_size() -> None:
    detector = build("r50_nuimg_704x256")
    sizes = {
        part: sum(value.numel() for value in module.state_dict().values()) / 1e6
        for part, module in (("all", detector), ("head", detector.head))
    }
    assert sizes == pytest.approx({"all": 44.6, "head": 17.7}, abs=0.05)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_pipelines_and_frames_fit_the_model(path: Path) -> None:
    config = load_config(path)
    for pipeline in (config.train_pipeline, config.test_pipeline):
        build_pipeline(pipeline)
    assert config.num_frames == len(config.past) + 1
    levels = config.model.head.layer.num_levels
    assert config.model.image_branch.neck.num_outs == levels
    assert all(size % 32 == 0 for size in config.image_size)


def test_rates_of_the_recipe() -> None:
    config = load_config(CONFIGS / "sparsebev_r50_nuimg_704x256.py")
    detector = build("r50_nuimg_704x256")
    wrapper = build_optim_wrapper(detector, config.optim_wrapper)
    rates = {id(group["params"][0]): group["lr"] for group in wrapper.param_groups}
    stage, offsets, rest = (
        detector.image_branch.backbone.stages[2][0].conv1.weight,
        detector.head.layer.sampling.offsets.weight,
        detector.head.layer.mixing.generator.weight,
    )
    assert [rates[id(each)] for each in (stage, offsets, rest)] == pytest.approx([2e-5, 2e-5, 2e-4])
    assert not detector.image_branch.backbone.stages[0][0].conv1.weight.requires_grad
