"""Weights of the official Sparse R-CNN -> an image branch with our `SparseRCNN`.

`STAGE` and `DYNAMIC` are relative to their part; `convert` takes a whole checkpoint. Its anchors of the pixel
normalisation and its criterion's weights are constants of the config.

Source: github.com/PeizeSun/SparseR-CNN, on detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("model",)
REST = r"(.+)"

DYNAMIC: Rules = [
    (rf"dynamic_layer\.{REST}", r"generator.\1"),
    (rf"out_layer\.{REST}", r"out_proj.\1"),
    (rf"(norm[123])\.{REST}", r"\1.\2"),
]
STAGE: Rules = [
    (r"self_attn\.in_proj_(weight|bias)", r"attention.in_proj.\1"),
    (rf"self_attn\.out_proj\.{REST}", r"attention.out_proj.\1"),
    *prefixed("inst_interact", "interaction", DYNAMIC),
    (rf"(linear[12]|norm[123])\.{REST}", r"\1.\2"),
    (rf"cls_module\.{REST}", r"class_tower.\1"),
    (rf"reg_module\.{REST}", r"box_tower.\1"),
    (rf"class_logits\.{REST}", r"classes.\1"),
    (rf"bboxes_delta\.{REST}", r"deltas.\1"),
]
HEAD: Rules = [
    (rf"head_series\.(\d+)\.{theirs}", rf"stages.\1.{_shifted}")
    for theirs, ours in STAGE
    for _shifted in [(ours or "").replace(r"\2", r"\3").replace(r"\1", r"\2")]
]

# detectron2 has the norm of a convolution below it.
RESNET: Rules = [
    (r"stem\.conv1\.weight", "stem.0.weight"),
    (rf"stem\.conv1\.norm\.{REST}", r"stem.1.\1"),
    *(
        rule
        for stage in (2, 3, 4, 5)
        for rule in (
            (rf"res{stage}\.(\d+)\.conv([123])\.norm\.{REST}", rf"stages.{stage - 2}.\1.bn\2.\3"),
            (rf"res{stage}\.(\d+)\.conv([123])\.weight", rf"stages.{stage - 2}.\1.conv\2.weight"),
            (rf"res{stage}\.(\d+)\.shortcut\.norm\.{REST}", rf"stages.{stage - 2}.\1.shortcut.1.\2"),
            (rf"res{stage}\.(\d+)\.shortcut\.weight", rf"stages.{stage - 2}.\1.shortcut.0.weight"),
        )
    ),
]
FPN: Rules = [
    *((rf"fpn_lateral{level}\.{REST}", rf"laterals.{level - 2}.\1") for level in (2, 3, 4, 5)),
    *((rf"fpn_output{level}\.{REST}", rf"outputs.{level - 2}.\1") for level in (2, 3, 4, 5)),
]
DETECTOR: Rules = [
    (r"pixel_(?:mean|std)", None),
    (r"criterion\.empty_weight", None),
    *prefixed(r"backbone\.bottom_up", "backbone", RESNET),
    *prefixed("backbone", "neck", FPN),
    (r"init_proposal_features\.weight", "detector.proposal_features"),
    (r"init_proposal_boxes\.weight", "detector.proposal_boxes"),
    *prefixed("head", "detector", HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Rename a whole official checkpoint's ``model`` to the names of our ``DetectorBranch``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return convert_names(state, DETECTOR)
