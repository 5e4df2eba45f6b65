"""Weights of the official Focals Conv code -> ours: its CenterPoint tree (nuScenes) and its OpenPCDet tree (Waymo).

The two trees name their parts differently, so a checkpoint's own names say which one it is of. Either may have the
image network of Focals Conv-F.

Source: github.com/dvlab-research/FocalsConv, and OpenPCDet's port of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from . import centerpoint, dsvt
from .backbones import RESNET
from .centerpoint import SECOND_BEV, SQUEEZE, STEM, residual_rules, to_our_boxes
from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = (*centerpoint.STATE_KEYS, *dsvt.STATE_KEYS)
REST = r"(.+)"

FOCAL: Rules = [
    (r"conv\.weight", "conv.weight"),
    (rf"bn1\.{REST}", r"norm.\1"),
    (rf"conv_enlarge\.{REST}", r"enlarge.\1"),
    (r"conv_imp\.weight", "predictor.weight"),
]

IMAGE_FOCAL: Rules = prefixed("conv_focal_multimodal", "image_focal", FOCAL)

# Residual blocks; the layer after them is focal.
CENTERPOINT_ENCODER: Rules = [
    *STEM,
    *(rule for block in (0, 1) for rule in residual_rules(rf"conv1\.{block}", f"stages.0.{block}")),
    *prefixed(r"conv1\.2", "focals.1", FOCAL),
    *((rf"conv{stage}\.0\.{REST}", rf"stages.{stage - 1}.0.\1") for stage in (2, 3, 4)),
    *(
        rule
        for stage in (2, 3, 4)
        for block in (1, 2)
        for rule in residual_rules(rf"conv{stage}\.{block}", f"stages.{stage - 1}.{block}")
    ),
    *(rule for stage in (2, 3) for rule in prefixed(rf"conv{stage}\.3", f"focals.{stage}", FOCAL)),
    *IMAGE_FOCAL,
    *SQUEEZE,
]

# Plain blocks, one in the first stage; the layer after them is focal.
OPENPCDET_ENCODER: Rules = [
    *STEM,
    (rf"conv1\.0\.{REST}", r"stages.0.0.\1"),
    *prefixed(r"conv1\.1", "focals.1", FOCAL),
    *((rf"conv{stage}\.([012])\.{REST}", rf"stages.{stage - 1}.\1.\2") for stage in (2, 3, 4)),
    *(rule for stage in (2, 3) for rule in prefixed(rf"conv{stage}\.3", f"focals.{stage}", FOCAL)),
    *IMAGE_FOCAL,
    (rf"conv_out\.{REST}", r"squeeze.\1"),
]


def image_rules(prefix: str) -> Rules:
    """Return the rules of Focals Conv-F's image network: a segmentation network's ResNet up to its first stage."""
    return [
        # What follows the first stage is not used there either.
        (rf"{prefix}\.ifn\.model\.(?:backbone\.layer[234]|(?:aux_)?classifier)\.{REST}", None),
        *prefixed(rf"{prefix}\.ifn\.model\.backbone", "image_branch.backbone", RESNET),
        (rf"{prefix}\.reduce_blocks\.0\.conv\.{REST}", r"image_branch.neck.conv.\1"),
        (rf"{prefix}\.reduce_blocks\.0\.bn\.{REST}", r"image_branch.neck.norm.\1"),
    ]


CENTERPOINT_TREE: Rules = [
    *image_rules("network2d"),
    *prefixed("backbone", "point_branch.backbone", CENTERPOINT_ENCODER),
    *prefixed("neck", "point_branch.bev_backbone", SECOND_BEV),
    *prefixed("bbox_head", "head", centerpoint.HEAD),
]
OPENPCDET_TREE: Rules = [
    ("global_step", None),
    *image_rules(r"backbone_3d\.semseg"),
    *prefixed("backbone_3d", "point_branch.backbone", OPENPCDET_ENCODER),
    *prefixed("backbone_2d", "point_branch.bev_backbone", SECOND_BEV),
    *prefixed("dense_head", "head", dsvt.CENTER_HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Bring a whole official state dictionary of either tree to the names and boxes of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    if any(name.startswith("backbone_3d.") for name in state):
        return convert_names(state, OPENPCDET_TREE)
    return to_our_boxes(convert_names(state, CENTERPOINT_TREE))
