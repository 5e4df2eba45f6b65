"""SparseFusion's configs: the official names, the size, the recipe, and a start from two detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from sparse3d.checkpoints import convert_names, sparsefusion
from sparse3d.checkpoints.convert import COUNTER
from sparse3d.checkpoints.sparsefusion import initialise
from sparse3d.config import load_config
from sparse3d.registry import MODELS
from tests.conftest import REPOSITORY

from .fusion import detector

CONFIGS = REPOSITORY / "configs" / "sparsefusion"


@pytest.fixture(scope="module")
def published() -> nn.Module:
    with torch.device("meta"):
        return MODELS.build(load_config(CONFIGS / "sparsefusion_r50_nuscenes.py").model)


def official_names(shared: Path, fixture: str, prefix: str) -> list[str]:
    with np.load(shared / "golden" / "sparsefusion" / f"{fixture}_a.npz") as arrays:
        return [prefix + name.removeprefix("state/") for name in arrays.files if name.startswith("state/")]


def own_names(model: nn.Module, *parts: str) -> set[str]:
    return {name for name in model.state_dict() if name.startswith(parts) and not name.endswith(COUNTER)}


def test_every_official_name_of_the_head_has_its_place(published: nn.Module, shared: Path) -> None:
    names = official_names(shared, "head_forward", "pts_bbox_head.")
    assert len(names) == 453
    state = {name: torch.empty(0) for name in names}
    assert convert_names(state, sparsefusion.DETECTOR).keys() == own_names(published, "head.", "image_branch.depth.")


def test_official_names_of_the_trunk_are_ours(published: nn.Module, shared: Path) -> None:
    """The fixture has fewer blocks in the bird's-eye levels; all of its names exist here."""
    state = {name: torch.empty(0) for name in official_names(shared, "lidar_trunk", "")}
    converted = convert_names(state, sparsefusion.DETECTOR).keys()
    own = own_names(published, "point_branch.")
    assert converted <= own
    assert own - converted == {
        name for name in own if name.startswith("point_branch.bev_backbone.levels.") and int(name.split(".")[4]) > 2
    }


def test_what_is_trained_and_at_which_rate(published: nn.Module) -> None:
    config = load_config(CONFIGS / "sparsefusion_r50_nuscenes.py")
    wrapper = build_optim_wrapper(published, config.optim_wrapper)
    rates = {id(group["params"][0]): group["lr"] for group in wrapper.param_groups}
    backbone = published.image_branch.backbone
    trained = (backbone.stages[2][0].conv1.weight, published.image_branch.depth.fusions[0].weight)
    assert [rates[id(each)] for each in trained] == pytest.approx([1e-5, 1e-4])
    frozen = (
        backbone.stages[0][0].conv1.weight,
        published.head.lidar.layer.linear1.weight,
        published.head.shared.weight,
    )
    assert not any(each.requires_grad for each in frozen)
    assert not any(each.requires_grad for each in published.point_branch.parameters())
    assert published.head.semantic.heatmap.weight.requires_grad


def test_decay_of_the_transformer_backbone() -> None:
    """As in the original, the longest name decides: norms of the backbone decay with it, its position biases do not."""
    config = load_config(CONFIGS / "sparsefusion_swint_nuscenes.py")
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decays = {id(group["params"][0]): group["weight_decay"] for group in wrapper.param_groups}
    rates = {id(group["params"][0]): group["lr"] for group in wrapper.param_groups}
    block = model.image_branch.backbone.stages[1].blocks[0]
    head = model.head
    chosen = {
        block.norm1.weight: (0.05, 7.5e-6),
        block.attention.position_bias: (0.0, 7.5e-5),
        model.image_branch.depth.blocks[0].norm1.weight: (0.01, 7.5e-5),
        head.camera.layer.norm1.weight: (0.0, 7.5e-5),
        head.fusion.lidar_projection[1].weight: (0.0, 7.5e-5),
        head.fusion.lidar_projection[0].weight: (0.01, 7.5e-5),
        head.view.gate.norm.weight: (0.01, 7.5e-5),
    }
    for parameter, expected in chosen.items():
        assert (decays[id(parameter)], rates[id(parameter)]) == pytest.approx(expected)


# -- a start from two detectors ----------------------------------------------------------------------------------------


def lidar_file(path: Path, model: nn.Module, **changes: Tensor) -> Path:
    """What TransFusion-L would be for this model: its names, random values."""
    theirs = {
        "pts_bbox_head.shared_conv.weight": model.head.shared.weight,
        "pts_bbox_head.heatmap_head.0.conv.weight": torch.zeros(16, 16, 3, 3),
        "pts_bbox_head.decoder.0.self_attn.in_proj_weight": model.head.lidar.layer.self_attention.in_proj.weight,
        "pts_bbox_head.decoder.0.cross_posembed.position_embedding_head.3.weight": model.head.lidar.key_position[
            3
        ].weight[..., None],
        "pts_bbox_head.prediction_heads.0.rot.1.weight": model.head.lidar.branches["rot"][1].weight[..., None],
        "pts_middle_encoder.conv_input.0.weight": model.point_branch.backbone.stem[0].weight,
    }
    state = {name: torch.rand(value.shape) for name, value in theirs.items()}
    torch.save({"state_dict": {**state, **changes}}, path)
    return path


def test_a_start_from_two_detectors(tmp_path: Path) -> None:
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lidar = lidar_file(tmp_path / "lidar.pth", model)
    image_state = {
        "backbone.layer1.0.conv1.weight": torch.rand_like(model.image_branch.backbone.stages[0][0].conv1.weight),
        "neck.lateral_convs.0.conv.bias": torch.rand(8),
        "roi_head.bbox_head.fc_cls.bias": torch.rand(11),
    }
    torch.save({"state_dict": image_state}, tmp_path / "images.pth")
    report = initialise(model, lidar, tmp_path / "images.pth")
    theirs, after = torch.load(lidar)["state_dict"], model.state_dict()
    assert set(report.loaded) == {
        "head.shared.weight",
        "head.lidar.layer.self_attention.in_proj.weight",
        "head.lidar.key_position.3.weight",
        "head.lidar.branches.rot.1.weight",
        "point_branch.backbone.stem.0.weight",
        "image_branch.backbone.stages.0.0.conv1.weight",
        "image_branch.neck.laterals.0.bias",
    }
    rot = theirs["pts_bbox_head.prediction_heads.0.rot.1.weight"][..., 0]
    assert torch.equal(after["head.lidar.branches.rot.1.weight"], -rot.flip(0))  # (sin, cos) of another heading
    assert torch.equal(after["image_branch.neck.laterals.0.bias"], image_state["neck.lateral_convs.0.conv.bias"])
    assert all(torch.equal(after[name], before[name]) for name in report.random)
    assert len(report.loaded) + len(report.random) == sum(not name.endswith(COUNTER) for name in after)
    assert report.unused[str(lidar)] == ("pts_bbox_head.heatmap_head.0.conv.weight",)
    assert report.unused[str(tmp_path / "images.pth")] == ("roi_head.bbox_head.fc_cls.bias",)
    assert "7 tensors loaded" in str(report) and "head.fusion" in str(report)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = detector()
    wrong = lidar_file(tmp_path / "wrong.pth", model, **{"pts_bbox_head.class_encoding.bias": torch.rand(5)})
    with pytest.raises(ValueError, match=r"head\.class_embedding\.bias: the model has \[16\]"):
        initialise(model, lidar=wrong)
    torch.save({"state_dict": {"something.else": torch.rand(3)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="none of its 1 entries belongs to this model"):
        initialise(model, images=tmp_path / "other.pth")
