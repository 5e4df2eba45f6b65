"""Sampling image features of many cameras and frames at projected points.

    out[b, q, g, t, p] = Σ_v Σ_l  weights[b, q, g, t, p, v, l] · bilinear(features[l][b, t, view, channels of g], x, y)
    x = u (W_l - 1),   y = v (H_l - 1)                 u, v in parts of the image: 0 is the first pixel, 1 the last one

A pixel outside of the image is zero, so a location up to one pixel beyond the border still sees a part of it. A point
may look into several views (V of them); a view of weight zero is not read.

Sums are taken in the dtype of the features; half precision is computed in float32. On a CPU the result has the same
bits on any number of threads.

Who computes is chosen as for sparse convolutions (``sparse3d_ops.sparse.use_backend``): ``numba`` on a CPU, and our own
GPU kernels, ``triton``, where they are named; elsewhere, and in graphs, the definition in plain torch.

A decoder samples the same features several times. `FeatureMaps` brings them into the kernel's order once, and collects
their gradient in one place: each backward pass adds to it, none makes a map of its own.

Source: SparseBEV (Liu et al., ICCV 2023), section 3.3, after AdaMixer (Gao et al., CVPR 2022), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import FLOATS, check_index, check_same_device, check_tensor
from .sparse.backends import backend_for

HALF = (torch.float16, torch.bfloat16)
WITH_KERNELS = ("numba", "triton")


class FeatureMaps:
    """Features of many cameras and frames, ready to be sampled any number of times.

    Features whose memory is channels-last are read where they are; others are copied.

    Args:
        levels: L of ``[B, T, N, C, H, W]``, floating point.

    Raises:
        ValueError: if there is no level, or they differ in more than height and width.
    """

    def __init__(self, levels: Sequence[Tensor]) -> None:
        _check_levels(levels)
        self.dtype, self.shape = levels[0].dtype, tuple(levels[0].shape[:4])  # B, T, N, C
        self.levels = [level.float() if level.dtype in HALF else level for level in levels]
        self.kernels = _kernels_for(levels[0].device)
        if self.kernels is not None:
            self.gradient = _Gradient()
            # Stands for the features in the graph: whoever samples them sends it an empty gradient, after having added
            # to the real one.
            self.ticket = _Collect.apply(self.gradient, *self.levels)
            self.levels = [_channels_last(level.detach()).contiguous() for level in self.levels]

    def __len__(self) -> int:
        return len(self.levels)


def sample_views(
    features: FeatureMaps | Sequence[Tensor],  # L of [B, T, N, C, H, W]
    locations: Tensor,  # [B, Q, G, T, P, V, 2]
    views: Tensor,  # [B, Q, G, T, P, V]
    weights: Tensor,  # [B, Q, G, T, P, V, L]
) -> Tensor:  # [B, Q, G, T, P, C / G]
    """Return what Q queries see with G groups of P points in T frames of N cameras.

    Differentiable once, with respect to features, locations and weights.

    Args:
        features: one map a level; as ``FeatureMaps`` where they are sampled more than once.
        locations: ``(u, v)`` of each point in each of its V views.
        views: int64 in ``[0, N)``, the cameras of those views.
        weights: share of each view and level.

    Raises:
        ValueError: if shapes or dtypes do not fit together, the groups do not divide the channels, or a view is no
            camera.
    """
    maps = features if isinstance(features, FeatureMaps) else FeatureMaps(features)
    _check_points(maps, locations, views, weights)
    dtype = maps.levels[0].dtype
    locations, weights = locations.to(dtype), weights.to(dtype)
    if maps.kernels is None:
        return sample_views_reference(maps.levels, locations, views, weights).to(maps.dtype)
    kernels, points = maps.kernels, (locations, views, weights)
    return _Sample.apply(maps.ticket, *points, maps.levels, maps.gradient, kernels).to(maps.dtype)


def sample_views_reference(
    features: Sequence[Tensor],
    locations: Tensor,
    views: Tensor,
    weights: Tensor,
) -> Tensor:
    """``sample_views`` in plain torch, by two-dimensional grid sampling, which graphs know too.

    The cameras of a frame are one tall image. Each has a row of zeros above and below, and what lies further out is
    taken to lie there, so nothing of a neighbour is seen.
    """
    batch, queries, groups, frames, points = views.shape[:5]
    channels = features[0].shape[3] // groups
    places, cameras, shares = _by_slab(locations), _by_slab(views), _by_slab(weights)  # [BTG, Q, P, V, ...]
    levels = ((level.unflatten(3, (groups, channels)), shares[..., n]) for n, level in enumerate(features))
    out = reduce(torch.add, (_seen_in_level(level, places, cameras, share) for level, share in levels))
    return out.view(batch, frames, groups, channels, queries, points).permute(0, 4, 2, 1, 5, 3)


def _seen_in_level(
    level: Tensor,  # [B, T, N, G, C / G, H, W]
    places: Tensor,  # [BTG, Q, P, V, 2]
    cameras: Tensor,  # [BTG, Q, P, V]
    shares: Tensor,  # [BTG, Q, P, V]
) -> Tensor:  # [BTG, C / G, Q, P]
    height = level.shape[5]
    rows = height + 2
    u, v = places.unbind(-1)
    y = (v * (height - 1)).clamp(-1, height) + 1 + cameras * rows
    grid = torch.stack([2 * u - 1, 2 * y / (level.shape[2] * rows - 1) - 1], dim=-1)
    framed = F.pad(level, (0, 0, 1, 1))
    tall = framed.permute(0, 1, 3, 4, 2, 5, 6).flatten(4, 5).flatten(0, 2)  # [BTG, C/G, N (H + 2), W]
    seen = F.grid_sample(tall, grid.flatten(2, 3), mode="bilinear", padding_mode="zeros", align_corners=True)
    return (seen.unflatten(3, grid.shape[2:4]) * shares[:, None]).sum(dim=-1)


def _by_slab(values: Tensor) -> Tensor:
    """Return ``[B, Q, G, T, ...]`` as ``[B T G, Q, ...]``."""
    return values.movedim(1, 3).transpose(1, 2).flatten(0, 2)


class _Gradient:
    """The gradient of features, while it is being collected."""

    def __init__(self) -> None:
        self.levels: list[Tensor] | None = None

    def open(self, like: Sequence[Tensor]) -> list[Tensor]:
        """Return what to add to."""
        if self.levels is None:
            self.levels = [torch.zeros_like(level) for level in like]
        return self.levels

    def take(self) -> list[Tensor] | None:
        """Return what was collected, and begin anew."""
        levels, self.levels = self.levels, None
        return levels


class _Collect(torch.autograd.Function):
    """Features -> ticket; back, the gradient that was collected since."""

    @staticmethod
    def forward(ctx: Any, gradient: _Gradient, *features: Tensor) -> Tensor:
        ctx.gradient = gradient
        return features[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        collected = ctx.gradient.take()
        needed = ctx.needs_input_grad[1:]
        if collected is None:
            return (None,) * (1 + len(needed))
        order = (0, 1, 2, 5, 3, 4)  # of [B, T, N, H, W, C] in [B, T, N, C, H, W]
        return None, *(level.permute(order) if need else None for level, need in zip(collected, needed, strict=True))


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ticket: Tensor,
        locations: Tensor,
        views: Tensor,
        weights: Tensor,
        features: list[Tensor],
        gradient: _Gradient,
        kernels: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(locations, views, weights, *features)
        ctx.gradient, ctx.kernels = gradient, kernels
        groups, channels = locations.shape[2], features[0].shape[5]
        out = locations.new_zeros(*views.shape[:5], channels // groups)
        kernels.run(kernels.sample_level, features, (locations, views, weights), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        locations, views, weights, *features = ctx.saved_tensors
        to_locations, to_weights = torch.zeros_like(locations), torch.zeros_like(weights)
        wanted = ctx.needs_input_grad[0]
        to_features = ctx.gradient.open(features) if wanted else [level.new_empty((0,) * 6) for level in features]
        points = (locations, views, weights)
        results = (gradients.contiguous(), to_features, to_locations, to_weights)
        ctx.kernels.run(ctx.kernels.sample_level_backward, features, points, *results)
        return gradients.new_zeros(()) if wanted else None, to_locations, None, to_weights, None, None, None


def _kernels_for(device: torch.device) -> ModuleType | None:
    """Return the module of kernels that computes on a device, None for plain torch."""
    if torch.compiler.is_compiling():
        return None
    name = backend_for(device).name
    return import_module(f"{__package__}._{name}.sampling") if name in WITH_KERNELS else None


def _channels_last(level: Tensor) -> Tensor:
    """Return ``[B, T, N, C, H, W]`` as ``[B, T, N, H, W, C]``."""
    return level.permute(0, 1, 2, 4, 5, 3)


def _check_levels(levels: Sequence[Tensor]) -> None:
    if not levels:
        raise ValueError("features: expected at least one level")
    check_tensor("features[0]", levels[0], (None,) * 6, FLOATS)
    for number, level in enumerate(levels):
        check_tensor(f"features[{number}]", level, (*levels[0].shape[:4], None, None), (levels[0].dtype,))
    check_same_device(**{f"features[{number}]": level for number, level in enumerate(levels)})


def _check_points(maps: FeatureMaps, locations: Tensor, views: Tensor, weights: Tensor) -> None:
    batch, frames, cameras, channels = maps.shape
    check_tensor("views", views, (batch, None, None, frames, None, None), (torch.int64,))
    check_tensor("locations", locations, (*views.shape, 2), FLOATS)
    check_tensor("weights", weights, (*views.shape, len(maps)), FLOATS)
    check_same_device(features=maps.levels[0], locations=locations, views=views, weights=weights)
    if not torch.compiler.is_compiling():  # a graph cannot look at values
        check_index("views", views, cameras)
    if channels % views.shape[2]:
        raise ValueError(f"features: {channels} channels are not divisible by {views.shape[2]} groups")
