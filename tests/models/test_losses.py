from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.models.losses import code_l1_loss, diou_loss, gaussian_focal_loss

BOX = [1.0, 2.0, 0.5, 4.0, 2.0, 1.5, 0.3]


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([0.0, 0.0, 2.0]).view(1, 1, 1, 3)
    target = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    p = 1 / (1 + math.exp(-2))
    expected = -(0.25 * math.log(0.5) + 0.5**4 * 0.25 * math.log(0.5) + p**2 * math.log(1 - p))
    assert float(gaussian_focal_loss(logits, target)) == pytest.approx(expected, rel=1e-5)
    assert float(gaussian_focal_loss(logits, torch.zeros_like(target))) > 0


def test_focal_loss_survives_saturated_logits() -> None:
    logits = torch.tensor([-200.0, 200.0, 200.0, -200.0]).view(1, 1, 2, 2).requires_grad_()
    loss = gaussian_focal_loss(logits, torch.tensor([1.0, 0, 1, 0]).view(1, 1, 2, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_unknown_codes_neither_cost_nor_push() -> None:
    prediction = torch.tensor([[1.0, 5.0], [2.0, 7.0]], requires_grad=True)
    target = torch.tensor([[0.0, math.nan], [0.0, 6.0]])
    loss = code_l1_loss(prediction, target, torch.tensor([1.0, 0.5]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx((3 + 0.5) / 2)
    assert prediction.grad.tolist() == [[0.5, 0.0], [0.5, 0.25]]


def test_smoothed_codes_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = (3 * torch.randn(50, 3, generator=generator)).requires_grad_()
    target, weights = torch.randn(50, 3, generator=generator), torch.tensor([1.0, 0.5, 2.0])
    betas = [0.0, 0.7, 3.0]
    loss = code_l1_loss(prediction, target, weights, torch.tensor(betas))
    expected = sum(
        weight * F.smooth_l1_loss(prediction[:, i], target[:, i], beta=beta)
        for i, (weight, beta) in enumerate(zip(weights, betas, strict=True))
    )
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(each, prediction)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_no_object_costs_nothing() -> None:
    none = torch.zeros(0, 7, requires_grad=True)
    loss = code_l1_loss(none, torch.zeros(0, 7), torch.ones(7)) + diou_loss(none, torch.zeros(0, 7))
    loss.backward()
    assert float(loss.detach()) == 0


def test_diou_by_hand() -> None:
    box = torch.tensor([BOX])
    moved = box + torch.tensor([2.0, 0, 0, 0, 0, 0, 1.0])
    hull = 6**2 + 2**2 + 1.5**2
    assert float(diou_loss(box, box)) == pytest.approx(0, abs=1e-6)
    assert float(diou_loss(moved, box)) == pytest.approx(1 - (1 / 3 - 4 / hull), rel=1e-5)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.1, 20), min_size=12, max_size=12))
def test_diou_is_bounded_and_symmetric(numbers: list[float]) -> None:
    a, b = torch.tensor(numbers).view(2, 1, 6)
    loss = float(diou_loss(a, b))
    assert -1e-5 <= loss <= 2
    assert loss == pytest.approx(float(diou_loss(b, a)), abs=1e-5)
