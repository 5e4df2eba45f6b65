"""Losses of keypoints, in float32, besides those of `losses.py`.

    keypoints   mean over x, y, z of  Σ over keypoints of  weight / M · Σ over people |e|;  wrists and ankles weigh 3
    visibility  mean over people and keypoints of |e|
    bones       mean over bones of  |Σ over people (predicted length - true length)| / slots

M is counted over all processes (`losses.mean_count`). The lengths of a bone are averaged over the batch before they are
compared, and over all slots for people, empty ones included, as in the published code: what is learnt is that bones are
neither too long nor too short on the whole, at a small weight. Lengths mix cells along x and y with metres along z.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871), and its code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse3d.structures.skeleton import BONES, KEYPOINTS

from .losses import code_l1_loss, mean_count

HARD_KEYPOINTS = ("WRIST", "ANKLE")
HARD_WEIGHT = 3.0


def keypoint_l1_loss(
    prediction: Tensor,  # [M, 14, 3]
    target: Tensor,  # [M, 14, 3]
) -> Tensor:
    """Return the weighted L1 loss (a scalar) of places; NaN targets count as met."""
    weights = target.new_tensor([HARD_WEIGHT if name.endswith(HARD_KEYPOINTS) else 1.0 for name in KEYPOINTS])
    axes = zip(prediction.unbind(-1), target.unbind(-1), strict=True)
    return sum(code_l1_loss(ours, theirs, weights) for ours, theirs in axes) / 3


def visibility_loss(
    prediction: Tensor,  # [M, 14]
    target: Tensor,  # [M, 14]
) -> Tensor:
    """Return the mean L1 loss (a scalar) of visibilities 0, 1 and 2."""
    return (prediction - target).abs().mean(dim=1).sum() / mean_count(len(target))


def bone_loss(
    prediction: Tensor,  # [M, 14, 3]
    target: Tensor,  # [M, 14, 3]
    slots: int,
) -> Tensor:
    """Return the loss (a scalar) of the mean lengths of bones.

    Args:
        prediction: ``[M, 14, 3]``.
        target: ``[M, 14, 3]``; a bone that ends at a NaN is left out.
        slots: people that the targets of a batch have room for.
    """
    wanted = _bone_lengths(target)
    known = ~wanted.isnan()
    excess = torch.where(known, _bone_lengths(prediction) - wanted.where(known, 0), 0)
    return excess.sum(dim=0).abs().mean() / slots


def _bone_lengths(keypoints: Tensor) -> Tensor:
    """Return the lengths ``[M, 13]``."""
    start, end = torch.tensor(BONES, device=keypoints.device).T
    return torch.linalg.vector_norm(keypoints[:, start] - keypoints[:, end], dim=-1)
