"""Multi-scale deformable attention against grid sampling of every camera, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import deformable_attention
from sparse3d_ops.deformable import deformable_attention_reference


def inputs(
    batch: int = 2,
    queries: int = 5,
    heads: int = 2,
    points: int = 3,
    cameras: int = 3,
    channels: int = 8,
    levels: Sequence[tuple[int, int]] = ((6, 9), (3, 5), (1, 2)),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Values, and locations of which some lie outside of the image."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    values = [(rand(batch, cameras, channels, *size) - 0.5).to(dtype) for size in levels]
    shape = (batch, queries, heads, len(levels), points)
    chosen = torch.randint(cameras, (batch, queries), generator=generator)
    return values, (rand(*shape, 2) * 1.8 - 0.4).to(dtype), rand(*shape).to(dtype), chosen


def with_gradients(function, values, locations, weights, chosen) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in (locations, weights, *values)]
    out = function(leaves[2:], leaves[0], leaves[1], chosen)
    share = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * share).sum(), leaves)]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.fixed_dictionaries(
        dict(
            batch=st.integers(1, 2),
            queries=st.integers(0, 6),
            heads=st.sampled_from([1, 2, 4]),
            points=st.integers(1, 3),
            cameras=st.integers(1, 4),
            levels=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
            seed=st.integers(0, 1000),
        )
    )
)
def test_equals_the_reference(shape: dict) -> None:
    arguments = inputs(**shape)
    ours, theirs = (with_gradients(each, *arguments) for each in (deformable_attention, deformable_attention_reference))
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_the_middle_of_a_pixel_reads_that_pixel() -> None:
    level = torch.arange(12.0).view(1, 1, 1, 3, 4)
    middles = torch.tensor([[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3], [2.5 / 4, 1.5 / 3]])
    seen = deformable_attention(
        [level], middles[None, :, None, None, None], torch.ones(1, 3, 1, 1, 1), torch.zeros(1, 3).long()
    )
    torch.testing.assert_close(seen[0, :, 0], torch.tensor([0.0, 11.0, 6.0]))


def test_channels_last_values_in_half_precision() -> None:
    values, locations, weights, chosen = inputs(dtype=torch.float32)
    rows = [level.movedim(2, -1).contiguous().movedim(-1, 2).bfloat16() for level in values]
    seen = deformable_attention(rows, locations, weights, chosen)
    assert seen.dtype == torch.bfloat16
    expected = deformable_attention_reference([level.float() for level in rows], locations, weights, chosen)
    torch.testing.assert_close(seen.float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(values=[]), "values: expected at least one level"),
        (dict(cameras=torch.full((2, 5), 3)), r"cameras: entries must lie in \[0, 3\)"),
        (dict(weights=torch.ones(2, 5, 2, 3, 4)), "weights: expected"),
        (dict(locations=torch.ones(2, 5, 3, 3, 3, 2), weights=torch.ones(2, 5, 3, 3, 3)), "not divisible by 3 heads"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    values, locations, weights, cameras = inputs(dtype=torch.float32)
    arguments = dict(values=values, locations=locations, weights=weights, cameras=cameras)
    with pytest.raises(ValueError, match=message):
        deformable_attention(**{**arguments, **change})
