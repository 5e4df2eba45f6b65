"""Sampling by our Triton kernels; run by sparse/test_triton.py, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sparse3d_ops import FeatureMaps, sample_views
from sparse3d_ops._triton import sampling as kernels
from sparse3d_ops.sampling import sample_views_reference
from sparse3d_ops.sparse import use_backend
from sparse3d_ops.sparse.backends import triton as backend

from .test_sampling import inputs, with_gradients

DEVICE = torch.device("cpu" if backend.INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def chosen() -> None:
    with use_backend("triton"):
        yield


def on_device(arguments: Sequence) -> list:
    levels, *others = arguments
    return [[level.to(DEVICE) for level in levels], *(each.to(DEVICE) for each in others)]


def assert_alike(arguments: Sequence, tolerance: float, ours: Callable = sample_views) -> None:
    arguments = on_device(arguments)
    for got, expected in zip(
        with_gradients(ours, *arguments), with_gradients(sample_views_reference, *arguments), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def test_these_kernels_are_meant() -> None:
    features, *_ = on_device(inputs())
    assert FeatureMaps(features).kernels is kernels


@pytest.mark.parametrize(
    "shape",
    [
        dict(),
        dict(queries=0),
        dict(batch=1, queries=9, groups=4, frames=1, points=1, views=3, levels=[(5, 4)]),  # as deformable attention
        dict(queries=11, groups=1, channels=5, views=2, levels=[(1, 1), (4, 7)]),  # channels that are no power of two
    ],
)
def test_equals_the_reference(shape: dict) -> None:
    assert_alike(inputs(**shape), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    features, locations, chosen, weights = on_device(inputs(dtype=torch.float32))
    narrow = sample_views([level.to(dtype) for level in features], locations, chosen, weights)
    wide = sample_views_reference([level.to(dtype).float() for level in features], locations, chosen, weights)
    assert narrow.dtype == dtype
    tolerance = max(4 * torch.finfo(dtype).eps, 1e-5)
    torch.testing.assert_close(narrow.float(), wide, atol=tolerance, rtol=tolerance)


def test_gradients_of_several_calls_are_collected() -> None:
    def twice(sample: Callable) -> Callable:
        def run(features: Sequence[Tensor], locations: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
            maps = FeatureMaps(features) if sample is sample_views else features
            return sample(maps, locations, chosen, weights) + sample(maps, locations * 0.5, chosen, weights).square()

        return run

    arguments = on_device(inputs())
    for got, expected in zip(
        with_gradients(twice(sample_views), *arguments),
        with_gradients(twice(sample_views_reference), *arguments),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_frozen_features_and_nan() -> None:
    features, locations, chosen, weights = on_device(inputs())
    weights.fill_(0.5).requires_grad_()
    sample_views(features, locations, chosen, weights).sum().backward()
    expected = torch.autograd.grad(sample_views_reference(features, locations, chosen, weights).sum(), weights)[0]
    torch.testing.assert_close(weights.grad, expected)
    assert features[0].grad is None

    locations[1, 2, 1, 0, 1, 0, 0] = torch.nan
    out = sample_views(features, locations, chosen, weights)
    assert out[1, 2, 1, 0, 1].isnan().all() and out.isnan().sum() == out.shape[-1]
