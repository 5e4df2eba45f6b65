"""Suppression by the distance of centres, against the loop that defines it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import nms_circle


def literal(centers: Tensor, scores: Tensor, squared: float, sample: Tensor, limit: int) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(centers)), key=lambda r: (-float(scores[r]), r)):
        own = [k for k in kept if sample[k] == sample[row]]
        free = all(float((centers[k] - centers[row]).square().sum()) > squared for k in own)
        if free and len(own) < limit:
            kept.append(row)
    return kept


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 1000), st.integers(0, 40), st.sampled_from([None, 0, 1, 3]), st.booleans())
def test_equals_the_literal_loop(seed: int, count: int, limit: int | None, batched: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randint(0, 9, (count, 2), generator=generator).float()  # distances tie with the bound
    scores = torch.randint(0, 6, (count,), generator=generator) / 5
    sample = torch.randint(0, 3, (count,), generator=generator)
    kept = nms_circle(centers, scores, 4.0, batch_index=sample if batched else None, max_output=limit)
    most = count if limit is None else limit
    assert kept.dtype == torch.int64
    assert kept.tolist() == literal(centers, scores, 4.0, sample if batched else torch.zeros_like(sample), most)


def test_refusals() -> None:
    centers, scores = torch.rand(4, 2), torch.rand(4)
    for arguments, message in (
        ((centers, scores[:3], 1.0), r"scores: expected \[4\]"),
        ((centers[:, :1], scores, 1.0), r"centers: expected \[\*, 2\]"),
        ((centers * math.nan, scores, 1.0), "centers: 4 of 4 rows hold NaN"),
        ((centers, scores, -1.0), "squared_distance: must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            nms_circle(*arguments)
    with pytest.raises(ValueError, match="max_output: must be at least 0"):
        nms_circle(centers, scores, 1.0, max_output=-1)
