"""Converting official weights: every entry of both sides is accounted for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import convert_names, load_converted, load_official
from sparse3d.checkpoints import dsvt as official
from sparse3d.engine import CheckpointError
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS

from .build import detector_config, transfusion_config

# Our names -> the official ones, written down here independently of the table under test.
THEIR_NAMES = [
    (r"point_branch\.voxel_encoder\.layers\.", "vfe.pfn_layers."),
    (r"point_branch\.backbone\.stages\.(\d)\.(\d)\.norm\.", r"backbone_3d.residual_norm_stage_\1.\2."),
    (
        r"point_branch\.backbone\.stages\.(\d)\.(\d)\.layers\.(\d)\.position\.",
        r"backbone_3d.input_layer.posembed_layers.\1.\2.\3.position_embedding_head.",
    ),
    (r"point_branch\.backbone\.stages\.(\d)\.(\d)\.layers\.(\d)\.", r"backbone_3d.stage_\1.\2.encoder_list.\3."),
    (r"encoder_list\.(\d)\.norm3\.", r"encoder_list.\1.norm."),
    (r"encoder_list\.(\d)\.(norm[12]|linear[12])\.", r"encoder_list.\1.win_attn.\2."),
    (r"encoder_list\.(\d)\.attention\.in_proj\.", r"encoder_list.\1.win_attn.self_attn.in_proj_"),
    (r"encoder_list\.(\d)\.attention\.", r"encoder_list.\1.win_attn.self_attn."),
    (r"point_branch\.bev_backbone\.levels\.(\d)\.(\d)\.norm", r"backbone_2d.blocks.\1.\2.bn"),
    (r"point_branch\.bev_backbone\.levels\.", "backbone_2d.blocks."),
    (r"shortcut\.", "downsample_layer."),
    (r"point_branch\.bev_backbone\.necks\.", "backbone_2d.deblocks."),
    (r"head\.shared\.", "dense_head.shared_conv."),
    (r"head\.tasks\.", "dense_head.heads_list."),
]
THEIR_TRANSFUSION_NAMES = [
    *THEIR_NAMES[:-2],
    (r"^head\.", "dense_head."),
    (r"dense_head\.shared\.", "dense_head.shared_conv."),
    (r"dense_head\.heatmap\.0\.0\.", "dense_head.heatmap_head.0.conv."),
    (r"dense_head\.heatmap\.0\.1\.", "dense_head.heatmap_head.0.bn."),
    (r"dense_head\.heatmap\.1\.", "dense_head.heatmap_head.1."),
    (r"class_embedding", "class_encoding"),
    (r"query_position", "decoder.self_posembed.position_embedding_head"),
    (r"key_position", "decoder.cross_posembed.position_embedding_head"),
    (r"layer\.self_attention\.in_proj\.", "decoder.self_attn.in_proj_"),
    (r"layer\.cross_attention\.in_proj\.", "decoder.multihead_attn.in_proj_"),
    (r"layer\.self_attention\.", "decoder.self_attn."),
    (r"layer\.cross_attention\.", "decoder.multihead_attn."),
    (r"dense_head\.layer\.", "dense_head.decoder."),
    (r"dense_head\.branches\.", "dense_head.prediction_head."),
]
CONV1D = r"dense_head\.(class_encoding|prediction_head.+|decoder\..+position_embedding_head\.[03])\.weight"


def build() -> Detector3D:
    return MODELS.build(detector_config())


def official_state(detector: Detector3D) -> dict[str, Tensor]:
    state = {}
    for name, value in detector.state_dict().items():
        for pattern, replacement in THEIR_NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = value
    return {"global_step": torch.zeros(1, dtype=torch.long), **state}


def test_a_whole_checkpoint_comes_back(tmp_path: Path) -> None:
    trained, fresh = build(), build()
    path = tmp_path / "official.pth"
    torch.save({"model_state": official_state(trained), "epoch": 24, "version": "pcdet"}, path)
    load_official(fresh, "dsvt", path)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_a_checkpoint_with_the_transfusion_head_comes_back() -> None:
    """Its one-dimensional convolutions of kernel 1 are linear layers here."""
    trained, fresh = MODELS.build(transfusion_config()), MODELS.build(transfusion_config())
    state = {}
    for name, value in trained.state_dict().items():
        for pattern, replacement in THEIR_TRANSFUSION_NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = value[..., None] if re.fullmatch(CONV1D, name) and value.ndim == 2 else value
    assert state["dense_head.prediction_head.center.1.weight"].shape == (2, 64, 1)
    load_converted(fresh, official.convert(state))
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_unknown_missing_and_misshaped_entries_are_all_listed() -> None:
    detector = build()
    state = official_state(detector)
    with pytest.raises(ValueError, match=r"(?s)2 entries:.*no rule for roi_head.w.*no rule for vfe.x"):
        official.convert({**state, "roi_head.w": torch.zeros(1), "vfe.x": torch.zeros(1)})
    converted = official.convert(state)
    converted["head.shared.1.bias"] = torch.zeros(3)
    converted["head.more"] = torch.zeros(3)
    del converted["head.shared.0.weight"]
    with pytest.raises(ValueError) as error:
        load_converted(detector, converted)
    message = str(error.value)
    assert "3 entries" in message
    assert "missing head.shared.0.weight" in message
    assert "unexpected head.more" in message
    assert "head.shared.1.bias: the model has [16], the checkpoint [3]" in message


def test_batch_norm_counters_may_be_missing() -> None:
    model = nn.BatchNorm1d(3)
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    load_converted(model, state)


def test_two_entries_may_not_become_one() -> None:
    with pytest.raises(ValueError, match="another entry already is"):
        convert_names({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, [(r"[ab]\.(.+)", r"c.\1")])


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model_state": Path("a")}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth holds more than tensors"):
        load_official(nn.Identity(), "dsvt", path)
    torch.save({"state": {}}, path)
    with pytest.raises(ValueError, match=r"expected an entry 'model_state', found \['state'\]"):
        load_official(nn.Identity(), "dsvt", path)
