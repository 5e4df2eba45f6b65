"""Weights of image backbones of others -> ours, whatever file they come in.

torchvision's ResNet has its names alone; a detector of mmdetection puts `backbone.` before them, one of mmdetection3d
`img_backbone.`, DD3D `backbone.bottom_up.`; EVA-02's detector has `backbone.net.` and its pyramid beside it. A detector
of ours, whose backbone another one may begin with, has `image_branch.backbone.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ..engine.files import read_checkpoint
from .convert import Rules, convert_names, find_state, load_converted, prefixed

REST = r"(.+)"
STATE_KEYS = ("state_dict", "model")

RESNET: Rules = [
    (rf"conv1\.{REST}", r"stem.0.\1"),
    (rf"bn1\.{REST}", r"stem.1.\1"),
    *(
        rule
        for stage in (1, 2, 3, 4)
        for rule in (
            (rf"layer{stage}\.(\d+)\.downsample\.{REST}", rf"stages.{stage - 1}.\1.shortcut.\2"),
            (rf"layer{stage}\.(\d+)\.conv2\.conv_offset\.{REST}", rf"stages.{stage - 1}.\1.conv2.offsets.\2"),
            (rf"layer{stage}\.{REST}", rf"stages.{stage - 1}.\1"),
        )
    ),
]

_PARTS = {"conv": 0, "norm": 1}
_MOST_BLOCKS = 10


def _one_shot_rules(stage: int, block: int) -> Rules:
    """Return the rules of a block; stages count from 2 and blocks from 1 there, and the pooling comes first here."""
    theirs = rf"stage{stage}\.OSA{stage}_{block}"
    ours = f"stages.{stage - 2}.{block}"
    name = rf"OSA{stage}_{block}_"
    return [
        *(
            (rf"{theirs}\.layers\.(\d+)\.{name}\d+/{part}\.{REST}", rf"{ours}.convs.\1.{n}.\2")
            for part, n in _PARTS.items()
        ),
        *((rf"{theirs}\.concat\.{name}concat/{part}\.{REST}", rf"{ours}.merge.{n}.\1") for part, n in _PARTS.items()),
        (rf"{theirs}\.ese\.fc\.{REST}", rf"{ours}.excite.\1"),
    ]


VOVNET: Rules = [
    *(
        (rf"stem\.stem_{number}/{part}\.{REST}", rf"stem.{number - 1}.{n}.\1")
        for number in (1, 2, 3)
        for part, n in _PARTS.items()
    ),
    *(rule for stage in (2, 3, 4, 5) for block in range(1, _MOST_BLOCKS) for rule in _one_shot_rules(stage, block)),
]

_SWIN_BLOCK = r"stages\.(\d+)\.blocks\.(\d+)"
_SWIN_PARTS = {
    r"attn\.w_msa\.qkv": "attention.qkv",
    r"attn\.w_msa\.proj": "attention.out",
    r"ffn\.layers\.0\.0": "mlp.0",
    r"ffn\.layers\.1": "mlp.2",
    "norm1": "norm1",
    "norm2": "norm2",
}
_MOST_STAGES = 4

SWIN: Rules = [
    (r".+\.relative_position_index", None),  # follows from the size of a window
    (rf"patch_embed\.{REST}", r"stem.\1"),
    (rf"{_SWIN_BLOCK}\.attn\.w_msa\.relative_position_bias_table", r"stages.\1.blocks.\2.attention.position_bias"),
    *((rf"{_SWIN_BLOCK}\.{theirs}\.{REST}", rf"stages.\1.blocks.\2.{ours}.\3") for theirs, ours in _SWIN_PARTS.items()),
    # what ends a stage there begins the next one here
    *((rf"stages\.{stage}\.downsample\.{REST}", rf"stages.{stage + 1}.merge.\1") for stage in range(_MOST_STAGES - 1)),
    (rf"norm(\d)\.{REST}", r"outputs.\1.\2"),
]

FPN: Rules = [
    (rf"lateral_convs\.(\d+)\.conv\.{REST}", r"laterals.\1.\2"),
    (rf"fpn_convs\.(\d+)\.conv\.{REST}", r"outputs.\1.\2"),
]

_BLOCK = r"backbone\.net\.blocks\.(\d+)"
_OUR_BLOCK = r"backbone.blocks.\1"
_SWIGLU = {"w1": "gate", "w2": "up", "ffn_ln": "norm", "w3": "down"}


def _pyramid_rules(theirs: int, level: int, lateral: int) -> Rules:
    """Return the rules of a level of the simple pyramid; its lateral follows what changes the scale."""
    name = rf"backbone\.simfp_{theirs}"
    parts = {"laterals": lateral, "outputs": lateral + 1}
    return [
        *((rf"{name}\.{number}\.norm\.{REST}", rf"neck.{ours}.{level}.1.\1") for ours, number in parts.items()),
        *((rf"{name}\.{number}\.{REST}", rf"neck.{ours}.{level}.0.\1") for ours, number in parts.items()),
    ]


# The official module holds transformer and pyramid, so these names are relative to our image branch.
EVA02: Rules = [
    (r".+\.freqs_(?:cos|sin)", None),  # rotary tables, which follow from the config
    (r"backbone\.net\.pos_embed", "backbone.positions"),
    (rf"backbone\.net\.patch_embed\.proj\.{REST}", r"backbone.embedding.\1"),
    (rf"{_BLOCK}\.(norm[12])\.{REST}", rf"{_OUR_BLOCK}.\2.\3"),
    (rf"{_BLOCK}\.attn\.q_bias", rf"{_OUR_BLOCK}.attention.query.bias"),
    (rf"{_BLOCK}\.attn\.v_bias", rf"{_OUR_BLOCK}.attention.value.bias"),
    (rf"{_BLOCK}\.attn\.q_proj\.weight", rf"{_OUR_BLOCK}.attention.query.weight"),
    (rf"{_BLOCK}\.attn\.k_proj\.weight", rf"{_OUR_BLOCK}.attention.key.weight"),
    (rf"{_BLOCK}\.attn\.v_proj\.weight", rf"{_OUR_BLOCK}.attention.value.weight"),
    (rf"{_BLOCK}\.attn\.proj\.{REST}", rf"{_OUR_BLOCK}.attention.out.\2"),
    *((rf"{_BLOCK}\.mlp\.{theirs}\.{REST}", rf"{_OUR_BLOCK}.mlp.{ours}.\2") for theirs, ours in _SWIGLU.items()),
    *_pyramid_rules(2, level=0, lateral=4),
    *_pyramid_rules(3, level=1, lateral=1),
    *_pyramid_rules(4, level=2, lateral=0),
    *_pyramid_rules(5, level=3, lateral=1),
    (rf"backbone\.simfp_2\.{REST}", r"neck.scales.0.\1"),
    (rf"backbone\.simfp_3\.0\.{REST}", r"neck.scales.1.\1"),
]

ANY_FILE: Rules = [
    (rf"image_branch\.backbone\.{REST}", r"backbone.\1"),
    *EVA02,
    *prefixed(r"(?:img_backbone|backbone\.bottom_up|backbone)", "backbone", [*RESNET, *VOVNET, *SWIN]),
    *((theirs, f"backbone.{ours}") for theirs, ours in RESNET),
    (r"(?!(?:img_|image_branch\.)?backbone\.).+", None),  # the other parts of a detector, or a classifier
]


def load_backbone(branch: nn.Module, path: str | Path) -> None:
    """Load a pretrained backbone into an image branch; the pyramid too, where it is a part of the file's backbone.

    Args:
        branch: with ``backbone`` and ``neck``.
        path: a file written by ``torch.save``, or safetensors; nothing in it is executed.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds objects.
        ValueError: if an entry of the file's backbone or of ours is unaccounted for; all of them are listed.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Mapping) or any(key in checkpoint for key in STATE_KEYS):
        checkpoint = find_state(checkpoint, path, *STATE_KEYS)
    state = convert_names(checkpoint, ANY_FILE)
    state = {name: value for name, value in state.items() if not _is_left_out(name, branch.backbone)}
    if any(name.startswith("neck.") for name in state):
        load_converted(branch, state)
    else:
        load_converted(branch.backbone, {name.removeprefix("backbone."): value for name, value in state.items()})


def _is_left_out(name: str, backbone: nn.Module) -> bool:
    """Return whether an entry belongs to a stage after the last one that a backbone has been built with."""
    stage = re.match(r"backbone\.stages\.(\d+)\.", name)
    return stage is not None and hasattr(backbone, "stages") and int(stage[1]) >= len(backbone.stages)
