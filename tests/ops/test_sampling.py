"""Multi-view sampling against grid sampling of volumes, forward and backward."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import FeatureMaps, sample_views
from sparse3d_ops.sampling import sample_views_reference

LEVELS = [(6, 9), (3, 5), (1, 2)]


def inputs(
    batch: int = 2,
    queries: int = 5,
    groups: int = 2,
    frames: int = 3,
    points: int = 2,
    views: int = 1,
    cameras: int = 4,
    channels: int = 8,
    levels: Sequence[tuple[int, int]] = LEVELS,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Features, and locations of which some lie outside of the image."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    features = [(rand(batch, frames, cameras, channels, *size) - 0.5).to(dtype) for size in levels]
    shape = (batch, queries, groups, frames, points, views)
    locations = (rand(*shape, 2) * 1.8 - 0.4).to(dtype)
    chosen = torch.randint(cameras, shape, generator=generator)
    weights = rand(*shape, len(levels)).to(dtype)
    weights[rand(*weights.shape) < 0.2] = 0
    return features, locations, chosen, weights


def with_gradients(function, features, locations, chosen, weights) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in (locations, weights, *features)]
    out = function(leaves[2:], leaves[0], chosen, leaves[1])
    share = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * share).sum(), leaves)]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.fixed_dictionaries(
        dict(
            batch=st.integers(1, 2),
            queries=st.integers(0, 6),
            groups=st.sampled_from([1, 2, 4]),
            frames=st.integers(1, 3),
            points=st.integers(1, 3),
            views=st.integers(1, 3),
            cameras=st.integers(1, 6),
            levels=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
            seed=st.integers(0, 1000),
        )
    )
)
def test_equals_the_reference(shape: dict) -> None:
    arguments = inputs(**shape)
    ours, theirs = (with_gradients(each, *arguments) for each in (sample_views, sample_views_reference))
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    features, locations, chosen, weights = inputs(dtype=torch.float32)
    features = [level.to(dtype) for level in features]
    ours = with_gradients(sample_views, features, locations, chosen, weights)
    theirs = with_gradients(sample_views_reference, [level.float() for level in features], locations, chosen, weights)
    assert ours[0].dtype == ours[-1].dtype == dtype
    tolerance = max(4 * torch.finfo(dtype).eps, 1e-5)  # the reference rounds places on its tall image
    torch.testing.assert_close(ours[0].float(), theirs[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(ours[-1].float(), theirs[-1], atol=8 * tolerance, rtol=8 * tolerance)


def test_by_hand() -> None:
    level = torch.arange(6.0).view(1, 1, 1, 1, 2, 3)  # 0 1 2 / 3 4 5
    locations = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.25, 0.0], [1.25, 1.0], [1.5, 1.0]])
    views = torch.zeros(1, 6, 1, 1, 1, 1, dtype=torch.int64)
    out = sample_views([level], locations.view(1, 6, 1, 1, 1, 1, 2), views, torch.full((1, 6, 1, 1, 1, 1, 1), 2.0))
    assert out.flatten().tolist() == [0, 10, 5, 1, 5, 0]  # beyond the border half of a pixel is left, then nothing


def test_memory_order_and_threads_change_nothing() -> None:
    features, locations, chosen, weights = inputs(queries=400, channels=16, dtype=torch.float32)
    channels_last = [level.movedim(3, -1).contiguous().movedim(-1, 3) for level in features]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = with_gradients(sample_views, features, locations, chosen, weights)
        torch.set_num_threads(3)
        three = with_gradients(sample_views, channels_last, locations.mT.contiguous().mT, chosen, weights)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(one, three, strict=True))


def test_sampling_several_times_adds_the_gradients() -> None:
    features, locations, chosen, weights = inputs()
    shared, alone = ([level.clone().requires_grad_() for level in features] for _ in range(2))
    maps = FeatureMaps(shared)
    several = [sample_views(maps, locations * scale, chosen, weights) for scale in (0.5, 1.0, 0.8)]
    for _ in range(2):  # a second backward pass begins anew
        for each in shared:
            each.grad = None
        (several[0].sum() + several[2].square().sum()).backward(retain_graph=True)
    sample_views_reference(alone, locations * 0.5, chosen, weights).sum().backward()
    sample_views_reference(alone, locations * 0.8, chosen, weights).square().sum().backward()
    for ours, theirs in zip(shared, alone, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_nothing_outlives_its_graph() -> None:
    features, locations, chosen, weights = inputs()
    leaves = [level.requires_grad_() for level in features]
    maps = FeatureMaps(leaves)
    kept = weakref.ref(maps.gradient)
    sample_views(maps, locations, chosen, weights).sum().backward()
    del maps
    assert kept() is None


def test_no_gradient_is_made_for_frozen_features() -> None:
    features, locations, chosen, weights = inputs()
    weights.requires_grad_()
    sample_views(features, locations, chosen, weights).sum().backward()
    ours = weights.grad
    weights.grad = None
    sample_views_reference(features, locations, chosen, weights).sum().backward()
    torch.testing.assert_close(ours, weights.grad)
    assert features[0].grad is None


def test_nan_is_not_hidden() -> None:
    features, locations, chosen, weights = inputs()
    weights.fill_(0.5)
    locations[1, 2, 1, 0, 1, 0, 0] = torch.nan
    out = sample_views(features, locations, chosen, weights)
    assert out[1, 2, 1, 0, 1].isnan().all() and out.isnan().sum() == out.shape[-1]


def test_what_does_not_fit_is_named() -> None:
    features, locations, chosen, weights = inputs()
    with pytest.raises(ValueError, match="at least one level"):
        sample_views([], locations, chosen, weights)
    with pytest.raises(ValueError, match=r"features\[1\]: expected \[2, 3, 4, 8, \*, \*\]"):
        sample_views([features[0], features[1][:, :2], features[2]], locations, chosen, weights)
    with pytest.raises(ValueError, match=r"weights: expected \[2, 5, 2, 3, 2, 1, 3\]"):
        sample_views(features, locations, chosen, weights[..., :2])
    with pytest.raises(ValueError, match=r"views: entries must lie in \[0, 4\)"):
        sample_views(features, locations, chosen + 4, weights)
    with pytest.raises(ValueError, match="8 channels are not divisible by 3 groups"):
        sample_views(*inputs(groups=3))
