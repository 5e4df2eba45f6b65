from __future__ import annotations

import math

import pytest
import torch

from sparse3d.models.losses import query_focal_loss


def test_query_focal_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, -math.log(3)]])  # probabilities 3/4, 1/2 and 1/2, 1/4
    loss = query_focal_loss(logits, torch.tensor([0, 2]), num_objects=2)
    object_class = 0.25 * 0.25**2 * -math.log(0.75)
    other_class = 0.75 * 0.5**2 * -math.log(0.5)
    background = 0.75 * 0.5**2 * -math.log(0.5) + 0.75 * 0.25**2 * -math.log(0.75)
    assert float(loss) == pytest.approx((object_class + other_class + background) / 2, rel=1e-5)


def test_query_focal_loss_without_objects_is_not_divided() -> None:
    logits, background = torch.randn(5, 3), torch.full((5,), 3)
    none, one = (query_focal_loss(logits, background, count) for count in (0, 1))
    assert float(none) == float(one) > 0


def test_query_focal_loss_survives_saturated_logits() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = query_focal_loss(logits, torch.tensor([0]), 1)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
