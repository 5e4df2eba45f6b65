"""Losses of the heads, in float32.

    focal   -1/n Σ  (1 - p)² log p             where the target is 1,  n = number of those cells, at least 1
                    (1 - t)⁴ p² log(1 - p)     elsewhere
    query   -1/n Σ over queries and classes of  α (1 - p)^γ log p          for the class of the query's object
                                                (1 - α) p^γ log(1 - p)     for the others
    l1      Σ over codes of  weight / M · Σ over objects |e|,  e = prediction - target, unknown (NaN) targets left out;
            smoothed with β > 0:  e² / 2β where |e| < β,  |e| - β / 2 elsewhere
    diou    mean of 1 - DIoU of boxes treated as axis-aligned

Under DDP, which averages over W processes, every n and M is the count of all processes divided by W (`mean_count`), so
the average is the loss of one process with the whole batch, and an object weighs the same wherever it is.

Source: CornerNet (Law and Deng, ECCV 2018) eq. 1; focal loss (Lin et al., ICCV 2017); CenterPoint (Yin et al., CVPR
2021); Distance-IoU (Zheng et al., AAAI 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

PROBABILITY_MARGIN = 1e-4  # probabilities are kept this far from 0 and 1


def mean_count(count: Tensor | int) -> Tensor:
    """Return a number of objects (float32 scalar), averaged over all processes; none in all of them counts as one."""
    total = torch.as_tensor(count, dtype=torch.float32).detach().clone()
    if not (distributed.is_available() and distributed.is_initialized()):
        return total.clamp(min=1)
    if distributed.get_backend() == "nccl":
        total = total.cuda()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()


def gaussian_focal_loss(
    logits: Tensor,  # [B, K, Y, X]
    target: Tensor,  # [B, K, Y, X]
) -> Tensor:
    """Return the penalty-reduced focal loss (a scalar) of a heat map."""
    p = logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    positive = target == 1
    at_centers = (1 - p).square() * p.log()
    elsewhere = (1 - target) ** 4 * p.square() * (1 - p).log()
    return -torch.where(positive, at_centers, elsewhere).sum() / mean_count(positive.sum())


def query_focal_loss(
    logits: Tensor,  # [Q, K]
    labels: Tensor,  # [Q]
    num_objects: int,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Return the focal loss (a scalar) of queries' classes.

    Args:
        logits: ``[Q, K]``, one sigmoid a class.
        labels: ``[Q]`` int64 in ``[0, K]``; K means background.
        num_objects: n, queries that have an object; 0 counts as 1.
        alpha: weight of the object's class; the others weigh 1 - alpha.
        gamma: focusing exponent.
    """
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    error = (target - logits.sigmoid()).abs()
    weight = target * alpha + (1 - target) * (1 - alpha)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * error**gamma * entropy).sum() / mean_count(num_objects)


def code_l1_loss(
    prediction: Tensor,  # [M, D]
    target: Tensor,  # [M, D]
    weights: Tensor,  # [D]
    betas: Tensor | None = None,  # [D]
) -> Tensor:
    """Return the weighted L1 loss (a scalar) of codes, smoothed below ``betas``; NaN targets count as met."""
    known = ~target.isnan()
    distance = (prediction - torch.where(known, target, prediction.detach())).abs()
    if betas is not None:
        near = distance.square() / (2 * betas.clamp(min=1e-6))
        distance = torch.where(distance < betas, near, distance - betas / 2)
    return (distance.sum(dim=0) * weights).sum() / mean_count(len(target))


def diou_loss(
    prediction: Tensor,  # [M, 7+]
    target: Tensor,  # [M, 7+]
) -> Tensor:
    """Return the mean of 1 - DIoU (a scalar, 0 without boxes), headings ignored, DIoU clamped to [-1, 1]."""
    low, high = prediction[:, :3] - prediction[:, 3:6] / 2, prediction[:, :3] + prediction[:, 3:6] / 2
    target_low, target_high = target[:, :3] - target[:, 3:6] / 2, target[:, :3] + target[:, 3:6] / 2
    common = (torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0).prod(dim=1)
    union = prediction[:, 3:6].prod(dim=1) + target[:, 3:6].prod(dim=1) - common
    hull = torch.maximum(high, target_high) - torch.minimum(low, target_low)
    distance = (target[:, :3] - prediction[:, :3]).square().sum(dim=1) / hull.square().sum(dim=1)
    diou = (common / union - distance).clamp(-1, 1)
    return (1 - diou).sum() / mean_count(len(target))
