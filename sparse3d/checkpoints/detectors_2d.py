"""Weights of 2D detectors of others -> an image branch with a 2D detector, as far as they know it.

A Faster R-CNN or Mask R-CNN of mmdetection knows backbone, neck, proposals and box head, and more than we use; one for
another number of classes is refused. Sparse R-CNN's official checkpoint knows a whole branch. What a backbone has that
the file's has not, the offsets of deformable convolutions for instance, stays as it was initialised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..engine.files import read_checkpoint
from . import sparse_rcnn
from .backbones import FPN, RESNET
from .convert import Rules, find_state, prefixed
from .initialise import Initialisation, load_known
from .mv2d import FASTER_RCNN

MMDETECTION: Rules = [
    *prefixed("backbone", "backbone", RESNET),
    *prefixed("neck", "neck", FPN),
    *((theirs, f"detector.{ours}") for theirs, ours in FASTER_RCNN),
]


def load_detector(branch: nn.Module, path: str | Path) -> Initialisation:
    """Load what a 2D detector's checkpoint knows into an image branch with ``backbone``, ``neck`` and ``detector``.

    Args:
        branch: takes the values.
        path: a file written by ``torch.save``, or safetensors; nothing in it is executed.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds objects.
        ValueError: if it knows nothing of the branch, or a tensor has another shape.
    """
    checkpoint = read_checkpoint(path)
    keys = [key for key in ("state_dict", "model") if isinstance(checkpoint, Mapping) and key in checkpoint]
    state: Mapping[str, Tensor] = find_state(checkpoint, path, *keys) if keys else checkpoint
    official = any(name.startswith("head.head_series.") for name in state)
    return load_known(branch, {str(path): (state, sparse_rcnn.DETECTOR if official else MMDETECTION)})
