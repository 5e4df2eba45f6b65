"""Weights of the official VoxelKP code (an OpenPCDet tree) -> ours; only names differ.

Source: github.com/shijianjian/VoxelKP.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from . import dsvt
from .centerpoint import STEM, residual_rules
from .convert import Rules, State, convert_names, prefixed

STATE_KEYS = dsvt.STATE_KEYS
REST = r"(.+)"
MAX_BLOCKS = 4  # of a hybrid stage

UNIT: Rules = [
    *(
        (rf"{theirs}{branch + 1}\.{REST}", rf"branches.{branch}.{part}.\1")
        for branch in (0, 1)
        for theirs, part in (("conv", 0), ("bn", 1))
    ),
    (rf"squeeze\.{REST}", r"squeeze.\1"),
    *((rf"excitation{kernel}\.{REST}", rf"excitations.{branch}.\1") for branch, kernel in enumerate((3, 5))),
]
SELECTIVE_KERNEL: Rules = [
    (rf"conv([12])\.{REST}", r"conv\1.\2"),
    (rf"bn([12])\.{REST}", r"norm\1.\2"),
    *prefixed("sk", "unit", UNIT),
]
BOX_ATTENTION: Rules = [
    (rf"attn\.attn\.{REST}", r"attention.\1"),
    (rf"norm([12])\.ln\.{REST}", r"norm\1.\2"),
    (rf"mlp\.{REST}", r"mlp.\1"),
]
HYBRID: Rules = [
    (rf"point_conv\.{REST}", r"points.\1"),
    *(
        rule
        for block in range(MAX_BLOCKS)
        for part in (SELECTIVE_KERNEL, BOX_ATTENTION)
        for rule in prefixed(rf"voxel_conv\.{block}", f"blocks.{block}", part)
    ),
]
ENCODER: Rules = [
    *STEM,
    *(rule for block in (0, 1) for rule in residual_rules(rf"conv1\.{block}", f"stages.0.{block}")),
    *((rf"conv{stage}\.0\.{REST}", rf"stages.{stage - 1}.0.\1") for stage in range(2, 7)),
    *(rule for block in (1, 2) for rule in residual_rules(rf"conv2\.{block}", f"stages.1.{block}")),
    *(rule for stage in range(3, 7) for rule in prefixed(rf"conv{stage}\.1", f"stages.{stage - 1}.1", HYBRID)),
    *((rf"conv{stage}_bev\.{REST}", rf"collapses.{stage - 4}.\1") for stage in (4, 5, 6)),
    (rf"conv_out\.{REST}", r"dilate.\1"),
    (rf"shared_conv\.{REST}", r"shared.\1"),
]
HEAD: Rules = [(rf"heads_list\.0\.{REST}", r"branches.\1")]
DETECTOR: Rules = [
    ("global_step", None),
    *prefixed("backbone_3d", "point_branch.backbone", ENCODER),
    *prefixed("dense_head", "head", HEAD),
]


def convert(state: Mapping[str, Tensor]) -> State:
    """Bring a whole official state dictionary to the names of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return convert_names(state, DETECTOR)
