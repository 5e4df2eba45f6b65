"""Weights of the official SparseBEV code -> ours.

`SAMPLING`, `ATTENTION`, ... are relative to their part; `convert` takes a whole checkpoint with its `img_backbone.`,
`img_neck.` and `pts_bbox_head.` prefixes, whichever backbone it has.

Source: github.com/MCG-NJU/SparseBEV.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .backbones import EVA02, FPN, RESNET, VOVNET
from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("state_dict",)
REST = r"(.+)"

ATTENTION: Rules = [
    (r"attention\.attn\.in_proj_(weight|bias)", r"attention.in_proj.\1"),
    (rf"attention\.attn\.out_proj\.{REST}", r"attention.out_proj.\1"),
    (rf"gen_tau\.{REST}", r"tau.\1"),
]
SAMPLING: Rules = [
    (rf"sampling_offset\.{REST}", r"offsets.\1"),
    (rf"scale_weights\.{REST}", r"level_weights.\1"),
]
MIXING: Rules = [
    (rf"parameter_generator\.{REST}", r"generator.\1"),
    (rf"out_proj\.{REST}", r"out_proj.\1"),
]
LAYER: Rules = [
    (rf"position_encoder\.{REST}", r"position.\1"),
    *prefixed("self_attn", "attention", ATTENTION),
    *prefixed("sampling", "sampling", SAMPLING),
    *prefixed("mixing", "mixing", MIXING),
    (rf"ffn\.layers\.0\.0\.{REST}", r"ffn.0.\1"),
    (rf"ffn\.layers\.1\.{REST}", r"ffn.3.\1"),
    (rf"(norm[123])\.{REST}", r"\1.\2"),
    (rf"cls_branch\.{REST}", r"class_branch.\1"),
    (rf"reg_branch\.{REST}", r"box_branch.\1"),
]
HEAD: Rules = [
    ("code_weights", None),  # a constant of the config
    (r"init_query_bbox\.weight", "query_codes"),
    (rf"label_enc\.{REST}", r"label_embedding.\1"),
    *prefixed(r"transformer\.decoder\.decoder_layer", "layer", LAYER),
]
DETECTOR: Rules = [
    *prefixed("img_backbone", "image_branch.backbone", [*RESNET, *VOVNET]),
    *prefixed("img_backbone", "image_branch", EVA02),
    *prefixed("img_neck", "image_branch.neck", FPN),
    *prefixed("pts_bbox_head", "head", HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Rename a whole official checkpoint's ``state_dict`` to the names of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return convert_names(state, DETECTOR)
