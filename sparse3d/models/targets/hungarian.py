"""One-to-one matching of predictions and objects, and the costs it is made of.

    focal    α (1 - p)^γ (-log p) - (1 - α) p^γ (-log(1 - p)),      p = sigmoid(logit of the object's class)
    l1       Σ |prediction - object|

A detector adds such costs up, and the negative IoU, with weights of its own; the assignment of least total cost is the
match.

Source: DETR (Carion et al., ECCV 2020), section 3.1; focal cost after Deformable DETR (Zhu et al., ICLR 2021).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def match(
    cost: Tensor,  # [Q, N]
) -> tuple[Tensor, Tensor]:  # [M], [M]
    """Return rows and columns int64 of the cheapest assignment of min(Q, N) pairs, in ascending order of rows.

    Raises:
        ValueError: if a cost is not finite; then a prediction or an object is not.
    """
    finite = cost.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"cost: {int((~finite).sum())} of {cost.numel()} pairs have no finite cost, the first is prediction "
            f"{row} with object {column}: look for NaN or infinity in the predictions and in the ground truth"
        )
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def focal_cost(
    logits: Tensor,  # [Q, K]
    labels: Tensor,  # [N]
    alpha: float = 0.25,
    gamma: float = 2.0,
    eps: float = 1e-12,
) -> Tensor:  # [Q, N]
    """Return what it costs to call prediction q an object of class ``labels[n]`` rather than background.

    Args:
        logits: ``[Q, K]``, one sigmoid a class.
        labels: ``[N]`` int64 in ``[0, K)``.
        alpha: weight of the positive term; 1 - alpha is the negative one's.
        gamma: focusing exponent.
        eps: added inside the logarithms.
    """
    p = logits.sigmoid()
    positive = alpha * (1 - p) ** gamma * -(p + eps).log()
    negative = (1 - alpha) * p**gamma * -(1 - p + eps).log()
    return (positive - negative)[:, labels]


def l1_cost(
    predictions: Tensor,  # [Q, D]
    objects: Tensor,  # [N, D]
) -> Tensor:  # [Q, N]
    """Return the sums of absolute differences."""
    return torch.cdist(predictions, objects, p=1)
