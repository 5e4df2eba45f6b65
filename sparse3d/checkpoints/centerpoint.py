"""Weights of the official CenterPoint code for nuScenes (Det3D's names) -> ours.

What differs besides the names, with r = -yaw - π/2 the heading in Det3D's boxes and (w, l, h) their size:

    rot     (sin r, cos r) = -(cos yaw, sin yaw), so the last convolution is negated
    dim     log (w, l, h), so its first two outputs change places
    necks   upsampling by 1 is a plain 1x1 convolution there and a transposed one here: the axes change places

Source: github.com/tianweiy/CenterPoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = ("state_dict",)
REST = r"(.+)"
MAX_BLOCKS = 16  # of a level of the bird's-eye backbone

STEM: Rules = [(rf"conv_input\.{REST}", r"stem.\1")]
SQUEEZE: Rules = [(rf"extra_conv\.{REST}", r"squeeze.\1")]


def residual_rules(theirs: str, ours: str) -> Rules:
    """Return the rules of a sparse residual block; both names are patterns without groups."""
    return [
        (rf"{theirs}\.conv([12])\.{REST}", rf"{ours}.conv\1.\2"),
        (rf"{theirs}\.bn([12])\.{REST}", rf"{ours}.norm\1.\2"),
    ]


ENCODER: Rules = [
    *STEM,
    *(rule for block in (0, 1) for rule in residual_rules(rf"conv1\.{block}", f"stages.0.{block}")),
    *((rf"conv{stage}\.([01])\.{REST}", rf"stages.{stage - 1}.0.\1.\2") for stage in (2, 3, 4)),
    *(
        rule
        for stage in (2, 3, 4)
        for block in (1, 2)
        for rule in residual_rules(rf"conv{stage}\.{block + 2}", f"stages.{stage - 1}.{block}")
    ),
    *SQUEEZE,
]

# A level is one flat list there: padding, then convolution, norm and activation of each block.
SECOND_BEV: Rules = [
    *(
        (rf"blocks\.(\d+)\.{3 * block + 1 + part}\.{REST}", rf"levels.\1.{block}.{part}.\2")
        for block in range(MAX_BLOCKS)
        for part in (0, 1)
    ),
    (rf"deblocks\.{REST}", r"necks.\1"),
]

BRANCHES = {"reg": "center", "height": "center_z", "dim": "dim", "rot": "rot", "vel": "vel", "hm": "hm"}
HEAD: Rules = [
    (rf"shared_conv\.{REST}", r"shared.\1"),
    *(
        (rf"tasks\.(\d+)\.{theirs}\.{layer}\.{REST}", rf"tasks.\1.{ours}.{place}.\2")
        for theirs, ours in BRANCHES.items()
        for layer, place in ((0, "0.0"), (1, "0.1"), (3, "1"))
    ),
]

DETECTOR: Rules = [
    *prefixed("backbone", "point_branch.backbone", ENCODER),
    *prefixed("neck", "point_branch.bev_backbone", SECOND_BEV),
    *prefixed("bbox_head", "head", HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Bring a whole official ``state_dict`` to the names and boxes of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return to_our_boxes(convert_names(state, DETECTOR))


def to_our_boxes(state: Mapping[str, Tensor]) -> State:
    """Undo what differs from Det3D besides names; see the top of the file."""
    return {name: _adapt(name, value) for name, value in state.items()}


def _adapt(name: str, value: Tensor) -> Tensor:
    if ".rot.1." in name:
        return -value
    if ".dim.1." in name:
        return value[[1, 0, 2]]
    if ".necks." in name and value.ndim == 4 and value.shape[-2:] == (1, 1):
        return value.transpose(0, 1)
    return value
