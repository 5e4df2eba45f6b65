"""Weights of the official DSVT code (OpenPCDet's names) -> ours.

The tables of the parts are relative to the part (`ENCODER` maps `pfn_layers.0...` to `layers.0...`); `convert` takes a
whole checkpoint with its `vfe.`, `backbone_3d.`, `backbone_2d.` and `dense_head.` prefixes, with either head.

Source: github.com/Haiyang-W/DSVT, and OpenPCDet's port of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("model_state",)
REST = r"(.+)"

ENCODER: Rules = [(rf"pfn_layers\.(\d+)\.{REST}", r"layers.\1.\2")]

_BLOCK = r"stage_(\d+)\.(\d+)"
_LAYER = rf"{_BLOCK}\.encoder_list\.(\d+)"
_OUR_LAYER = r"stages.\1.\2.layers.\3"
BACKBONE: Rules = [
    (
        rf"input_layer\.posembed_layers\.(\d+)\.(\d+)\.(\d+)\.position_embedding_head\.{REST}",
        rf"{_OUR_LAYER}.position.\4",
    ),
    (rf"{_LAYER}\.win_attn\.self_attn\.in_proj_{REST}", rf"{_OUR_LAYER}.attention.in_proj.\4"),
    (rf"{_LAYER}\.win_attn\.self_attn\.out_proj\.{REST}", rf"{_OUR_LAYER}.attention.out_proj.\4"),
    (rf"{_LAYER}\.win_attn\.(linear[12]|norm[12])\.{REST}", rf"{_OUR_LAYER}.\4.\5"),
    (rf"{_LAYER}\.norm\.{REST}", rf"{_OUR_LAYER}.norm3.\4"),
    (rf"residual_norm_{_BLOCK}\.{REST}", r"stages.\1.\2.norm.\3"),
    (r"stage_(\d+)_reduction\.pos_embedding", r"poolings.\1.slot_embedding"),
    (rf"stage_(\d+)_reduction\.self_attn\.in_proj_{REST}", r"poolings.\1.attention.in_proj.\2"),
    (rf"stage_(\d+)_reduction\.self_attn\.out_proj\.{REST}", r"poolings.\1.attention.out_proj.\2"),
    (rf"stage_(\d+)_reduction\.linear1\.{REST}", r"poolings.\1.linear.\2"),
    (rf"stage_(\d+)_reduction\.norm\.{REST}", r"poolings.\1.norm.\2"),
]

BEV: Rules = [
    (rf"blocks\.(\d+)\.(\d+)\.conv([12])\.{REST}", r"levels.\1.\2.conv\3.\4"),
    (rf"blocks\.(\d+)\.(\d+)\.bn([12])\.{REST}", r"levels.\1.\2.norm\3.\4"),
    (rf"blocks\.(\d+)\.(\d+)\.downsample_layer\.{REST}", r"levels.\1.\2.shortcut.\3"),
    (rf"deblocks\.{REST}", r"necks.\1"),
]

CENTER_HEAD: Rules = [
    (rf"shared_conv\.{REST}", r"shared.\1"),
    (rf"heads_list\.(\d+)\.{REST}", r"tasks.\1.\2"),
]

TRANSFUSION_HEAD: Rules = [
    (rf"shared_conv\.{REST}", r"shared.\1"),
    (rf"heatmap_head\.0\.conv\.{REST}", r"heatmap.0.0.\1"),
    (rf"heatmap_head\.0\.bn\.{REST}", r"heatmap.0.1.\1"),
    (rf"heatmap_head\.1\.{REST}", r"heatmap.1.\1"),
    (rf"class_encoding\.{REST}", r"class_embedding.\1"),
    (rf"decoder\.self_posembed\.position_embedding_head\.{REST}", r"query_position.\1"),
    (rf"decoder\.cross_posembed\.position_embedding_head\.{REST}", r"key_position.\1"),
    (rf"decoder\.self_attn\.in_proj_{REST}", r"layer.self_attention.in_proj.\1"),
    (rf"decoder\.self_attn\.out_proj\.{REST}", r"layer.self_attention.out_proj.\1"),
    (rf"decoder\.multihead_attn\.in_proj_{REST}", r"layer.cross_attention.in_proj.\1"),
    (rf"decoder\.multihead_attn\.out_proj\.{REST}", r"layer.cross_attention.out_proj.\1"),
    (rf"decoder\.(linear[12]|norm[123])\.{REST}", r"layer.\1.\2"),
    (rf"prediction_head\.{REST}", r"branches.\1"),
]

PARTS = {
    "vfe": ("point_branch.voxel_encoder", ENCODER),
    "backbone_3d": ("point_branch.backbone", BACKBONE),
    "backbone_2d": ("point_branch.bev_backbone", BEV),
    "dense_head": ("head", CENTER_HEAD + TRANSFUSION_HEAD),
}
DETECTOR: Rules = [
    ("global_step", None),
    *(rule for theirs, (ours, rules) in PARTS.items() for rule in prefixed(theirs, ours, rules)),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Rename a whole official checkpoint's ``model_state`` to the names of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return convert_names(state, DETECTOR)
