from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.models.targets.hungarian import focal_cost, l1_cost, match


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 5), st.integers(0, 4), st.integers(0, 10**6))
def test_no_assignment_is_cheaper(num_queries: int, num_objects: int, seed: int) -> None:
    cost = torch.randn(num_queries, num_objects, generator=torch.Generator().manual_seed(seed))
    rows, columns = match(cost)
    pairs = min(num_queries, num_objects)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == pairs
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.dtype == columns.dtype == torch.int64
    tall = cost if num_queries >= num_objects else cost.T
    cheapest = min(
        (
            sum(float(tall[row, column]) for column, row in enumerate(order))
            for order in itertools.permutations(range(len(tall)), pairs)
        ),
        default=0.0,
    )
    assert float(cost[rows, columns].sum()) == pytest.approx(cheapest, abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_named(value: float) -> None:
    cost = torch.zeros(3, 2)
    cost[1, 1] = value
    with pytest.raises(ValueError, match=r"1 of 6 pairs .* prediction 1 with object 1"):
        match(cost)


def test_focal_cost_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(1 / 3), 0.0]])
    cost = focal_cost(logits, torch.tensor([1, 1, 0]), alpha=0.25, gamma=2.0)
    p = 0.75
    confident = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    undecided = (0.25 - 0.75) * 0.25 * math.log(2)
    doubtful = 0.25 * p**2 * -math.log(1 - p) - 0.75 * (1 - p) ** 2 * -math.log(p)
    expected = [[confident, confident, undecided], [undecided, undecided, doubtful]]
    torch.testing.assert_close(cost, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert focal_cost(logits * 1000, torch.tensor([0, 1])).isfinite().all()


def test_l1_cost_by_hand() -> None:
    cost = l1_cost(torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
    assert cost.tolist() == [[1.0], [2.0]]
