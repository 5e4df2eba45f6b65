"""MV2D as published: its checkpoints' names and shapes, and what 2D detectors of others bring along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse3d.checkpoints import mv2d, sparse_rcnn
from sparse3d.checkpoints.convert import COUNTER
from sparse3d.checkpoints.detectors_2d import load_detector
from sparse3d.config import load_config
from sparse3d.registry import MODELS
from sparse3d.zoo_checks import build_on_meta
from tests.conftest import REPOSITORY

CLASSES = [str(number) for number in range(10)]
BRANCH: dict[str, Any] = dict(
    type="DetectorBranch",
    backbone=dict(type="ResNet", depth=50, base_channels=4, deformable_stages=(2, 3)),
    neck=dict(type="FPN", in_channels=[16, 32, 64, 128], out_channels=32, num_outs=5),
    detector=dict(type="FasterRCNN", class_names=CLASSES, channels=32, hidden_channels=24),
)


@pytest.mark.parametrize("form", ["s", "t"])
def test_names_and_shapes_of_the_published_checkpoints(shared: Path, form: str) -> None:
    published = json.loads((shared / "golden" / "mv2d" / "state_dict_keys.json").read_text())["configs"]
    [shapes] = [each for name, each in published.items() if ("two_frames" in name) == (form == "t")]
    config = load_config(REPOSITORY / "configs" / "mv2d" / f"mv2d_{form}_r50_frcnn_1408x512.py")
    own = {name: list(value.shape) for name, value in build_on_meta(config).state_dict().items()}
    converted = mv2d.convert({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert {name: list(value.shape) for name, value in converted.items()} == own
    assert len(shapes) == 603


def test_a_2d_detector_brings_what_it_knows(shared: Path, tmp_path: Path) -> None:
    """A Mask R-CNN without deformable convolutions, as nuImages' are."""
    with np.load(shared / "golden" / "mv2d" / "full_model_a.npz") as arrays:
        prefix = "state/base_detector."
        names = [name for name in arrays if name.startswith(prefix) and "conv_offset" not in name]
        state = {name.removeprefix(prefix): torch.from_numpy(arrays[name]) for name in names}
    state["roi_head.mask_head.conv_logits.weight"] = torch.zeros(10, 8, 1, 1)
    torch.save({"state_dict": state}, tmp_path / "mask_rcnn.pth")
    branch = MODELS.build({**BRANCH, "pretrained": str(tmp_path / "mask_rcnn.pth")})
    branch.init_weights()
    report = load_detector(branch, tmp_path / "mask_rcnn.pth")
    assert report.random and all(".conv2.offsets." in name for name in report.random)
    assert report.unused == {str(tmp_path / "mask_rcnn.pth"): ("roi_head.mask_head.conv_logits.weight",)}
    own = branch.state_dict()
    assert set(report.loaded) == {name for name in own if not name.endswith(COUNTER)} - set(report.random)
    assert torch.equal(own["detector.box_head.classes.weight"], state["roi_head.bbox_head.fc_cls.weight"])
    assert torch.equal(own["backbone.stages.2.0.conv2.weight"], state["backbone.layer3.0.conv2.weight"])
    torch.save({"state_dict": {"something.else": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="none of its 1 entries belongs to this model"):
        load_detector(branch, tmp_path / "other.pth")


def test_sparse_rcnn_brings_a_whole_branch(tmp_path: Path) -> None:
    """Its checkpoint has the names that detectron2 and its own code give."""
    stage = dict(num_heads=4, ffn_channels=24, dynamic_channels=4)
    detector = dict(type="SparseRCNN", class_names=CLASSES, num_proposals=5, num_stages=2, channels=32, stage=stage)
    branch, other = (
        MODELS.build({**BRANCH, "backbone": dict(type="ResNet", depth=50, base_channels=4), "detector": detector})
        for _ in range(2)
    )
    state = {_official(name): value for name, value in branch.state_dict().items() if not name.endswith(COUNTER)}
    torch.save({"model": {**state, "pixel_mean": torch.zeros(3)}}, tmp_path / "sparse_rcnn.pth")
    report = load_detector(other, tmp_path / "sparse_rcnn.pth")
    assert not report.random and report.unused == {str(tmp_path / "sparse_rcnn.pth"): ("pixel_mean",)}
    for name, value in branch.state_dict().items():
        assert name.endswith(COUNTER) or torch.equal(other.state_dict()[name], value), name
    assert len(sparse_rcnn.convert(state)) == len(state)


def _official(name: str) -> str:
    """The official name of ours; written down here a second time, from the published checkpoints' names."""
    part, rest = name.split(".", 1)
    if part == "neck":
        kind, level, leaf = rest.split(".")
        return f"backbone.fpn_{dict(laterals='lateral', outputs='output')[kind]}{int(level) + 2}.{leaf}"
    if part == "detector":
        return _official_detector(rest)
    words = rest.split(".")
    if words[0] == "stem":
        return f"backbone.bottom_up.stem.conv1.{'norm.' if words[1] == '1' else ''}{words[2]}"
    stage, block, layer, *leaf = words[1:]
    place = f"backbone.bottom_up.res{int(stage) + 2}.{block}"
    if layer == "shortcut":
        return f"{place}.shortcut.{'norm.' if leaf[0] == '1' else ''}{leaf[1]}"
    return f"{place}.conv{layer[-1]}.{'norm.' if layer.startswith('bn') else ''}{leaf[0]}"


def _official_detector(name: str) -> str:
    if name in ("proposal_boxes", "proposal_features"):
        return f"init_{name}.weight"
    _, number, part, *leaf = name.split(".")
    last = ".".join(leaf)
    parts = {
        "attention": f"self_attn.{last.replace('in_proj.', 'in_proj_')}",
        "interaction": "inst_interact." + last.replace("generator", "dynamic_layer").replace("out_proj", "out_layer"),
        "class_tower": f"cls_module.{last}",
        "box_tower": f"reg_module.{last}",
        "classes": f"class_logits.{last}",
        "deltas": f"bboxes_delta.{last}",
    }
    return f"head.head_series.{number}.{parts.get(part, f'{part}.{last}')}"


def test_unknown_names_are_listed() -> None:
    state: dict[str, Tensor] = {"roi_head.query_generator.fc_size.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="no rule for roi_head"):
        mv2d.convert(state)
