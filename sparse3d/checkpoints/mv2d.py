"""Weights of the official MV2D code -> ours; S and T have the same names.

`QUERIES`, `POSITIONS`, ... are relative to their part; `convert` takes a whole checkpoint.

Source: github.com/tusen-ai/MV2D.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .backbones import FPN, RESNET
from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("state_dict",)
REST = r"(.+)"

PROPOSALS: Rules = [
    (rf"rpn_conv\.{REST}", r"convolution.\1"),
    (rf"rpn_cls\.{REST}", r"scores.\1"),
    (rf"rpn_reg\.{REST}", r"deltas.\1"),
]
BOX_HEAD: Rules = [
    (rf"shared_fcs\.{REST}", r"layers.\1"),
    (rf"fc_cls\.{REST}", r"classes.\1"),
    (rf"fc_reg\.{REST}", r"deltas.\1"),
]
FASTER_RCNN: Rules = [
    *prefixed("rpn_head", "proposals", PROPOSALS),
    *prefixed(r"roi_head\.bbox_head", "box_head", BOX_HEAD),
]
LAYER: Rules = [
    *(
        rule
        for number, ours in enumerate(("self_attention", "cross_attention"))
        for rule in (
            (rf"attentions\.{number}\.attn\.in_proj_(weight|bias)", rf"{ours}.in_proj.\1"),
            (rf"attentions\.{number}\.attn\.out_proj\.{REST}", rf"{ours}.out_proj.\1"),
        )
    ),
    (rf"ffns\.0\.layers\.0\.0\.{REST}", r"linear1.\1"),
    (rf"ffns\.0\.layers\.1\.{REST}", r"linear2.\1"),
    *((rf"norms\.{number}\.{REST}", rf"norm{number + 1}.\1") for number in (0, 1, 2)),
]
QUERIES: Rules = [
    (rf"shared_convs\.0\.conv\.{REST}", r"convolution.\1"),
    (rf"shared_fcs\.0\.{REST}", r"linear.\1"),
    (rf"extra_enc\.{REST}", r"encoder.\1"),
    (rf"fc_center\.{REST}", r"center.\1"),
]
POSITIONS: Rules = [
    (rf"position_encoder\.{REST}", r"rays.\1"),
    (rf"adapt_pos3d\.{REST}", r"places.\1"),
    (rf"fpe\.conv_reduce\.{REST}", r"gate.0.\1"),
    (rf"fpe\.conv_expand\.{REST}", r"gate.2.\1"),
]
MOST_LAYERS = 12
HEAD: Rules = [
    (r"bbox_head\.code_weights", None),  # a constant of the config
    *(
        rule
        for number in range(MOST_LAYERS)
        for rule in prefixed(rf"bbox_head\.transformer\.decoder\.layers\.{number}", f"layers.{number}", LAYER)
    ),
    (rf"bbox_head\.transformer\.decoder\.post_norm\.{REST}", r"norm.\1"),
    (rf"bbox_head\.query_embedding\.{REST}", r"query_embedding.\1"),
    (rf"bbox_head\.cls_branches\.(\d+)\.{REST}", r"branches.\1.classes.\2"),
    (rf"bbox_head\.reg_branches\.(\d+)\.{REST}", r"branches.\1.boxes.\2"),
    *prefixed("query_generator", "query_generator", QUERIES),
    *prefixed("position_encoding", "position_encoding", POSITIONS),
]
DETECTOR: Rules = [
    *prefixed(r"base_detector\.backbone", "image_branch.backbone", RESNET),
    *prefixed(r"base_detector\.neck", "image_branch.neck", FPN),
    *prefixed("base_detector", "image_branch.detector", FASTER_RCNN),
    *prefixed("neck", "head.neck", FPN),
    *prefixed("roi_head", "head", HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Rename a whole official checkpoint's ``state_dict`` to the names of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return convert_names(state, DETECTOR)
