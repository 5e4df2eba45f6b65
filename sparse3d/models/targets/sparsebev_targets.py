"""SparseBEV's training targets: one object for each of some queries.

    cost = 2 focal(class) + 0.25 Σ |weights · (loss code - loss code of the object)|

Source: SparseBEV's published code, after DETR3D (Wang et al., CoRL 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.decoding.sparsebev import encode_boxes

from .ground_truth import GroundTruth
from .hungarian import focal_cost, l1_cost, match

CODE_WEIGHTS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
UNKNOWN_COST = 100.0  # of an object whose code is not known in full, with any query


@dataclass(frozen=True)
class QueryTargets:
    """What queries of a batch have to find.

    Args:
        labels: ``[B, Q]`` int64, class of each query's object, K where it has none.
        queries: ``[M]`` int64, ``b * Q + q`` of the queries that have an object, ascending.
        objects: ``[M]`` int64, row of the ground truth.
    """

    labels: Tensor
    queries: Tensor
    objects: Tensor


@dataclass(frozen=True)
class SparseBEVTargetAssigner:
    """Matches queries with objects.

    Args:
        class_cost: weight of the focal cost.
        box_cost: weight of the distance of codes.
        code_weights: weight of each number of a code.
        alpha: of the focal cost.
        gamma: of the focal cost.
    """

    class_cost: float = 2.0
    box_cost: float = 0.25
    code_weights: Sequence[float] = CODE_WEIGHTS
    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self,
        logits: Tensor,  # [B, Q, K]
        codes: Tensor,  # [B, Q, 10]
        truth: GroundTruth,
    ) -> QueryTargets:
        """Match a batch's queries, given by class logits and loss codes, with its objects.

        An object whose velocity is not known costs the same with every query.

        Raises:
            ValueError: if a prediction is not finite.
        """
        logits, codes = logits.detach(), codes.detach()
        queries, objects = [], []
        for sample in range(truth.batch_size):
            rows = (truth.batch_index == sample).nonzero()[:, 0]
            query, row = match(self.cost(logits[sample], codes[sample], truth[rows]))
            queries.append(query + sample * logits.shape[1])
            objects.append(rows[row])
        found = QueryTargets(
            torch.full(logits.shape[:2], logits.shape[2], device=logits.device), torch.cat(queries), torch.cat(objects)
        )
        found.labels.view(-1)[found.queries] = truth.labels[found.objects]
        return found

    def cost(self, logits: Tensor, codes: Tensor, objects: GroundTruth) -> Tensor:
        """Return what each pair of a query and an object of one sample costs, ``[Q, N]``."""
        weights = codes.new_tensor(self.code_weights)
        wanted = encode_boxes(objects.boxes.tensor)
        by_class = focal_cost(logits, objects.labels, self.alpha, self.gamma)
        by_box = l1_cost(codes * weights, wanted * weights)
        known = wanted.isfinite().all(dim=1)
        return (self.class_cost * by_class + self.box_cost * by_box).where(known, UNKNOWN_COST)
