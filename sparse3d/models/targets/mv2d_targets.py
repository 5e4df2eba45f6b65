"""MV2D's training targets: one object for each of some queries of a sample, whose number differs.

    cost = 2 focal(class) + 0.25 Σ |code - code of the object|,       velocities left out

Source: MV2D (Wang et al., ICCV 2023), section 3.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .ground_truth import GroundTruth
from .hungarian import match
from .sparsebev_targets import QueryTargets, SparseBEVTargetAssigner

COST_WEIGHTS = (1.0,) * 8 + (0.0, 0.0)


def match_queries(
    assigner: SparseBEVTargetAssigner,
    logits: Tensor,  # [B, Q, K]
    codes: Tensor,  # [B, Q, 10]
    valid: Tensor,  # [B, Q]
    truth: GroundTruth,
) -> QueryTargets:
    """Match the valid queries of each sample, which come first, with its objects.

    Raises:
        ValueError: if a prediction is not finite.
    """
    queries, objects = [], []
    for sample, count in enumerate(valid.sum(dim=1).tolist()):
        rows = (truth.batch_index == sample).nonzero()[:, 0]
        own = (each[sample, :count].detach() for each in (logits, codes))
        query, row = match(assigner.cost(*own, truth[rows]))
        queries.append(query + sample * logits.shape[1])
        objects.append(rows[row])
    found = torch.cat(queries), torch.cat(objects)
    labels = torch.full(logits.shape[:2], logits.shape[2], device=logits.device)
    labels.view(-1)[found[0]] = truth.labels[found[1]]
    return QueryTargets(labels, *found)
