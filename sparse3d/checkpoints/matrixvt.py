"""Weights of the official MatrixVT (BEVDepth's code) -> ours.

`DEPTH_NET`, `HORICONV`, ... are relative to their part; `convert` takes a whole checkpoint, with or without the
`model.` that Lightning puts before every name. Headings are (sin yaw, cos yaw) there and (cos yaw, sin yaw) here.

Source: github.com/Megvii-BaseDetection/BEVDepth.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .backbones import RESNET
from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("state_dict",)
REST = r"(.+)"

SECOND_FPN: Rules = [(rf"deblocks\.{REST}", r"necks.\1")]

_DILATED: Rules = [
    *(
        (rf"aspp{number}\.{theirs}\.{REST}", rf"branches.{number - 1}.{place}.\1")
        for number in (1, 2, 3, 4)
        for theirs, place in (("atrous_conv", 0), ("bn", 1))
    ),
    *((rf"global_avg_pool\.{theirs}\.{REST}", rf"mean.{place}.\1") for theirs, place in ((1, 0), (2, 1))),
    *((rf"{theirs}\.{REST}", rf"mix.{place}.\1") for theirs, place in (("conv1", 0), ("bn1", 1))),
]
DEFORMABLE: Rules = [("weight", "weight"), (rf"conv_offset\.{REST}", r"offsets.\1")]
DEPTH_NET: Rules = [
    (rf"reduce_conv\.{REST}", r"reduce.\1"),
    (rf"context_conv\.{REST}", r"context.\1"),
    (rf"bn\.{REST}", r"code_norm.\1"),
    *(
        (rf"(depth|context)_{theirs}\.{REST}", rf"\1_gate.{ours}.\2")
        for theirs, ours in (
            (r"mlp\.fc1", "mlp.0"),
            (r"mlp\.fc2", "mlp.2"),
            (r"se\.conv_reduce", "gate.0"),
            (r"se\.conv_expand", "gate.2"),
        )
    ),
    *prefixed(r"depth_conv\.3", "depth.3", _DILATED),
    *prefixed(r"depth_conv\.4", "depth.4", DEFORMABLE),
    (rf"depth_conv\.([0125])\.{REST}", r"depth.\1.\2"),
]
HORICONV: Rules = [
    (rf"merger\.{REST}", r"merger.\1"),
    (rf"reduce_conv\.{REST}", r"reduce.\1"),
    (rf"conv1\.{REST}", r"blocks.0.\1"),
    (rf"conv2\.{REST}", r"blocks.1.\1"),
    (rf"out_conv\.{REST}", r"out.\1"),
]
VIEW_TRANSFORM: Rules = [
    ("(?:voxel_size|voxel_coord|voxel_num|frustum|bev_anchors)", None),  # follow from the config
    *prefixed("depth_net", "depth_net", DEPTH_NET),
    *prefixed("horiconv", "horiconv", HORICONV),
    (rf"depth_reducer\.vertical_weighter\.{REST}", r"depth_reducer.score.\1"),
]
BEV_BACKBONE: Rules = [
    *((rf"trunk\.{theirs}", ours) for theirs, ours in RESNET),
    *prefixed("neck", "neck", SECOND_FPN),
]

BRANCHES = {"reg": "center", "height": "center_z", "dim": "dim", "rot": "rot", "vel": "vel", "heatmap": "hm"}
HEAD: Rules = [
    (rf"shared_conv\.conv\.{REST}", r"shared.0.\1"),
    (rf"shared_conv\.bn\.{REST}", r"shared.1.\1"),
    *(
        (rf"task_heads\.(\d+)\.{theirs}\.{layer}\.{REST}", rf"tasks.\1.{ours}.{place}.\2")
        for theirs, ours in BRANCHES.items()
        for layer, place in ((r"0\.conv", "0.0"), (r"0\.bn", "0.1"), ("1", "1"))
    ),
]

_BRANCH = "image_branch"
PARTS: Rules = [
    *prefixed(r"backbone\.img_backbone", f"{_BRANCH}.backbone", RESNET),
    *prefixed(r"backbone\.img_neck", f"{_BRANCH}.neck", SECOND_FPN),
    *prefixed("backbone", f"{_BRANCH}.view_transform", VIEW_TRANSFORM),
    *prefixed("head", f"{_BRANCH}.bev_backbone", BEV_BACKBONE),
    *prefixed("head", "head", HEAD),
]
DETECTOR: Rules = [(rf"(?:model\.)?{theirs}", ours) for theirs, ours in PARTS]


def convert(state: Mapping[str, Tensor]) -> State:
    """Bring a whole official ``state_dict`` to the names and headings of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return to_our_headings(convert_names(state, DETECTOR))


def to_our_headings(state: Mapping[str, Tensor]) -> State:
    """Exchange the two outputs of the heads' last layers for headings."""
    return {name: value[[1, 0]] if ".rot.1." in name else value for name, value in state.items()}
