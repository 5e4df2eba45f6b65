"""CenterPoint's and Focals Conv's weights: names, box conventions, and the layouts of spconv."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import SYSTEMS, centerpoint, load_official, load_official_state
from sparse3d.checkpoints.spconv import LAYOUTS, to_own_layout
from sparse3d.config import load_config
from sparse3d.decoding.center import decode_boxes
from sparse3d.engine import read_checkpoint
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d_ops.sparse import SparseConv3d, SubMConv3d
from sparse3d_ops.sparse.modules import Convolution
from tests.conftest import REPOSITORY

CENTERPOINT = "centerpoint/centerpoint_voxel0075_nuscenes"
FOCALS_NUSCENES = "focals_conv/focals_conv_voxel0075_nuscenes"
FOCALS_FUSION = "focals_conv/focals_conv_f_voxel0075_nuscenes"
FOCALS_WAYMO = "focals_conv/focals_conv_centerpoint_waymo"

# Our names -> the official ones, written down here independently of the tables under test.
BLOCK = r"point_branch\.bev_backbone\.levels\.(\d)\.(\d)\.([01])\."
FOCAL = [
    (r"(conv\d\.\d)\.enlarge\.", r"\1.conv_enlarge."),
    (r"(conv\d\.\d)\.predictor\.", r"\1.conv_imp."),
    (r"(conv\d\.\d)\.norm\.", r"\1.bn1."),
]
DET3D = [
    (r"point_branch\.bev_backbone\.necks", "neck.deblocks"),
    (r"point_branch\.backbone\.stem", "backbone.conv_input"),
    (r"point_branch\.backbone\.squeeze", "backbone.extra_conv"),
    (r"\.norm([12])\.", r".bn\1."),
    (r"head\.shared", "bbox_head.shared_conv"),
    (r"head\.tasks\.(\d)\.(\w+)\.0\.([01])\.", r"bbox_head.tasks.\1.\2.\3."),
    (r"^head\.tasks\.(\d)\.(\w+)\.1\.", r"bbox_head.tasks.\1.\2.3."),
    (r"\.center\.", ".reg."),
    (r"\.center_z\.", ".height."),
]
OPENPCDET = [
    (r"point_branch\.bev_backbone\.necks", "backbone_2d.deblocks"),
    (r"point_branch\.backbone\.stem", "backbone_3d.conv_input"),
    (r"point_branch\.backbone\.squeeze", "backbone_3d.conv_out"),
    (r"point_branch\.backbone\.stages\.0\.0", "backbone_3d.conv1.0"),
    (r"point_branch\.backbone\.focals\.1\.", "backbone_3d.conv1.1."),
    (r"point_branch\.backbone\.focals\.(\d)\.", r"backbone_3d.conv\1.3."),
    *FOCAL,
    (r"head\.shared", "dense_head.shared_conv"),
    (r"head\.tasks", "dense_head.heads_list"),
]


IMAGES = [
    (r"image_branch\.backbone\.stem\.0", "network2d.ifn.model.backbone.conv1"),
    (r"image_branch\.backbone\.stem\.1", "network2d.ifn.model.backbone.bn1"),
    (r"image_branch\.backbone\.stages\.0\.(\d)\.shortcut", r"network2d.ifn.model.backbone.layer1.\1.downsample"),
    (r"image_branch\.backbone\.stages\.0", "network2d.ifn.model.backbone.layer1"),
    (r"image_branch\.neck\.conv", "network2d.reduce_blocks.0.conv"),
    (r"image_branch\.neck\.norm", "network2d.reduce_blocks.0.bn"),
    (r"point_branch\.backbone\.image_focal\.norm", "backbone.conv_focal_multimodal.bn1"),
    (r"point_branch\.backbone\.image_focal\.predictor", "backbone.conv_focal_multimodal.conv_imp"),
    (r"point_branch\.backbone\.image_focal", "backbone.conv_focal_multimodal"),
]


def build(name: str, **options: Any) -> Detector3D:
    torch.manual_seed(0)
    return MODELS.build(load_config(REPOSITORY / "configs" / f"{name}.py", options).model)


def rename(name: str, table: list[tuple[str, str]], stage: Any, neck: str) -> str:
    name = re.sub(BLOCK, lambda m: f"{neck}.blocks.{m[1]}.{3 * int(m[2]) + 1 + int(m[3])}.", name)
    name = re.sub(r"point_branch\.backbone\.stages\.(\d)\.(\d)\.", stage, name)
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def centerpoint_stage(match: re.Match) -> str:
    stage, place = int(match[1]) + 1, int(match[2])
    if stage == 1:
        return f"backbone.conv1.{place}."
    return f"backbone.conv{stage}." if place == 0 else f"backbone.conv{stage}.{place + 2}."


def fork_stage(match: re.Match) -> str:
    return f"backbone.conv{int(match[1]) + 1}.{match[2]}."


def openpcdet_stage(match: re.Match) -> str:
    return f"backbone_3d.conv{int(match[1]) + 1}.{match[2]}."


def det3d_state(detector: Detector3D, stage: Any, table: list[tuple[str, str]]) -> dict[str, Tensor]:
    state = {}
    for name, value in detector.state_dict().items():
        theirs = rename(name, table, stage, "neck")
        if re.search(r"\.rot\.3\.", theirs):
            value = -value
        if re.search(r"\.dim\.3\.", theirs):
            value = value[[1, 0, 2]]
        if theirs == "neck.deblocks.0.0.weight":
            value = value.transpose(0, 1)
        state[theirs] = value
    return state


def official(name: str, detector: Detector3D) -> dict[str, Tensor]:
    if name == CENTERPOINT:
        return det3d_state(detector, centerpoint_stage, DET3D)
    if name == FOCALS_NUSCENES:
        places = [(r"point_branch\.backbone\.focals\.1\.", "backbone.conv1.2.")]
        places += [(r"point_branch\.backbone\.focals\.(\d)\.", r"backbone.conv\1.3.")]
        return det3d_state(detector, fork_stage, [*places, *FOCAL, *DET3D])
    if name == FOCALS_FUSION:
        state = det3d_state(detector, fork_stage, [*IMAGES, *DET3D])
        unused = ("backbone.layer4.0.conv1.weight", "classifier.4.bias")
        return state | {f"network2d.ifn.model.{each}": torch.zeros(1) for each in unused}
    state = {
        rename(name, OPENPCDET, openpcdet_stage, "backbone_2d"): value for name, value in detector.state_dict().items()
    }
    return {"global_step": torch.zeros(1, dtype=torch.long), **state}


def old_layout(state: dict[str, Tensor], order: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: value.permute(order).contiguous() if value.ndim == 5 else value for name, value in state.items()}


SYSTEM = {
    CENTERPOINT: "centerpoint",
    FOCALS_NUSCENES: "focals_conv",
    FOCALS_FUSION: "focals_conv",
    FOCALS_WAYMO: "focals_conv",
}
ORDERS = {"spconv 2.x": (0, 1, 2, 3, 4), "spconv 1.x": (1, 2, 3, 4, 0), "early spconv 2.x": (1, 2, 3, 0, 4)}


@pytest.mark.parametrize("name", SYSTEM)
@pytest.mark.parametrize("layout", ORDERS)
def test_a_whole_checkpoint_comes_back(name: str, layout: str, tmp_path: Path) -> None:
    trained, fresh = build(name), build(name)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    state = old_layout(official(name, trained), ORDERS[layout])
    path = tmp_path / "official.pth"
    torch.save({SYSTEMS[SYSTEM[name]].STATE_KEYS[-1]: state}, path)
    load_official(fresh, SYSTEM[name], path)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_names_in_the_official_files() -> None:
    """Some names as they stand in the released code, so that both tables cannot be wrong in the same way."""
    theirs = official(CENTERPOINT, build(CENTERPOINT)).keys()
    assert {
        "backbone.conv_input.0.weight",
        "backbone.conv1.1.conv2.bias",
        "backbone.conv2.0.weight",
        "backbone.conv2.1.running_mean",
        "backbone.conv4.4.bn1.weight",
        "backbone.extra_conv.0.weight",
        "neck.blocks.1.16.weight",
        "neck.deblocks.1.1.bias",
        "bbox_head.tasks.5.reg.3.weight",
        "bbox_head.shared_conv.1.running_var",
    } <= theirs
    theirs = official(FOCALS_WAYMO, build(FOCALS_WAYMO)).keys()
    assert {
        "backbone_3d.conv1.1.conv_imp.weight",
        "backbone_3d.conv3.3.bn1.bias",
        "backbone_3d.conv4.2.0.weight",
    } <= theirs


@pytest.mark.parametrize("name", SYSTEM)
def test_what_is_left_is_listed(name: str) -> None:
    detector = build(name)
    state = official(name, detector)
    gone = next(key for key in state if "conv_input.0" in key)
    with pytest.raises(ValueError, match=r"missing point_branch\.backbone\.stem\.0\.weight"):
        load_official_state(detector, SYSTEM[name], {key: value for key, value in state.items() if key != gone})
    with pytest.raises(ValueError, match="no rule for network2d"):
        load_official_state(detector, SYSTEM[name], {**state, "network2d.weight": torch.zeros(1)})


def test_boxes_of_det3d_become_ours() -> None:
    """Their head says (w, l, h) and the sine and cosine of r = -yaw - 90 degrees."""
    detector = build(CENTERPOINT)
    yaw, length, width = 0.7, 4.0, 2.0
    r = -yaw - math.pi / 2
    theirs = {
        "bbox_head.tasks.0.rot.3.bias": torch.tensor([math.sin(r), math.cos(r)]),
        "bbox_head.tasks.0.dim.3.bias": torch.tensor([width, length, 1.5]).log(),
    }
    ours = centerpoint.convert(theirs)
    values = {name: ours[f"head.tasks.0.{name}.1.bias"][None] for name in ("rot", "dim")}
    values |= {"center": torch.zeros(1, 2), "center_z": torch.zeros(1, 1)}
    box = decode_boxes(values, torch.zeros(1, dtype=torch.int64), detector.head.grid)
    torch.testing.assert_close(box[0, 3:], torch.tensor([length, width, 1.5, yaw]))


# -- layouts -------------------------------------------------------------------------------------------------------


def square() -> nn.Sequential:
    return nn.Sequential(SubMConv3d(4, 4, 3), SubMConv3d(4, 4, 3))


@pytest.mark.parametrize("layout", ORDERS)
def test_one_weight_that_is_not_square_tells_for_all(layout: str) -> None:
    module = nn.Sequential(SubMConv3d(4, 4, 3), SparseConv3d(4, 6, 3, 2), nn.Conv3d(2, 3, 3))
    assert set(ORDERS) == set(LAYOUTS)
    state = {
        f"{name}.weight": each.weight.detach().permute(ORDERS[layout]) if isinstance(each, Convolution) else each.weight
        for name, each in module.named_children()
    }
    found = to_own_layout(state, module)
    assert all(torch.equal(found[f"{name}.weight"], each.weight) for name, each in module.named_children())


def test_square_weights_alone_are_no_guess() -> None:
    module = square()
    own = {"0.weight": module[0].weight, "1.weight": module[1].weight}
    assert all(torch.equal(value, own[name]) for name, value in to_own_layout(own, module).items())
    with pytest.raises(ValueError, match="several layouts"):
        to_own_layout({name: value.permute(1, 2, 3, 4, 0) for name, value in own.items()}, module)


def test_mixed_layouts_fit_none() -> None:
    module = nn.Sequential(SparseConv3d(4, 6, 3), SparseConv3d(6, 8, 3))
    state = {"0.weight": module[0].weight, "1.weight": module[1].weight.permute(1, 2, 3, 4, 0)}
    with pytest.raises(ValueError, match=r"no layout of spconv .*\n  0\.weight: the model has \[6, 3, 3, 3, 4\]"):
        to_own_layout(state, module)


# -- the tool ------------------------------------------------------------------------------------------------------


def convert_with_tool(python: str, source: Path, out: Path) -> subprocess.CompletedProcess:
    command = [python, "tools/convert_checkpoint.py", "focals_conv", source, out]
    command += ["--config", f"configs/{FOCALS_WAYMO}.py"]
    return subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_tool_writes_all_or_nothing(python: str, tmp_path: Path) -> None:
    detector = build(FOCALS_WAYMO)
    state = old_layout(official(FOCALS_WAYMO, detector), ORDERS["spconv 1.x"])
    source, out = tmp_path / "official.pth", tmp_path / "new" / "ours.safetensors"
    torch.save({"model_state": state}, source)
    done = convert_with_tool(python, source, out)
    assert done.returncode == 0, done.stderr
    weights = read_checkpoint(out)["state_dict"]
    assert weights.keys() == detector.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())

    del state["backbone_3d.conv4.2.0.weight"]
    torch.save({"model_state": {**state, "surplus": torch.zeros(1)}}, source)
    failed = convert_with_tool(python, source, tmp_path / "failed.pth")
    assert failed.returncode == 1
    assert "no rule for surplus" in failed.stderr
    assert not (tmp_path / "failed.pth").exists()
