"""Sampling image features of many cameras and frames at projected points.

    out[b, q, g, t, p] = Σ_v Σ_l  weights[b, q, g, t, p, v, l] · bilinear(features[l][b, t, view, channels of g], x, y)
    x = u (W_l - 1),   y = v (H_l - 1)                 u, v in parts of the image: 0 is the first pixel, 1 the last one

A pixel outside of the image is zero, so a location up to one pixel beyond the border still sees a part of it. A point
may look into several views (V of them); a view of weight zero is not read.

Sums are taken in the dtype of the features; half precision is computed in float32. On a CPU the result has the same
bits on any number of threads.

Source: SparseBEV (Liu et al., ICCV 2023), section 3.3, after AdaMixer (Gao et al., CVPR 2022), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import FLOATS, check_index, check_same_device, check_tensor
from ._numba import sampling as kernels
from ._numba import threads

HALF = (torch.float16, torch.bfloat16)
CORNERS = 4


def sample_views(
    features: Sequence[Tensor],  # L of [B, T, N, C, H, W]
    locations: Tensor,  # [B, Q, G, T, P, V, 2]
    views: Tensor,  # [B, Q, G, T, P, V]
    weights: Tensor,  # [B, Q, G, T, P, V, L]
) -> Tensor:  # [B, Q, G, T, P, C / G]
    """Return what Q queries see with G groups of P points in T frames of N cameras.

    Differentiable once, with respect to features, locations and weights. Features whose memory is channels-last are
    read where they are; others are copied.

    Args:
        features: one map a level, floating point.
        locations: ``(u, v)`` of each point in each of its V views.
        views: int64 in ``[0, N)``, the cameras of those views.
        weights: share of each view and level.

    Raises:
        ValueError: if shapes or dtypes do not fit together, the groups do not divide the channels, or a view is no
            camera.
    """
    _check(features, locations, views, weights)
    dtype = features[0].dtype
    if dtype in HALF:
        features = [level.float() for level in features]
    locations, weights = locations.to(features[0].dtype), weights.to(features[0].dtype)
    if features[0].device.type != "cpu":
        return sample_views_reference(features, locations, views, weights).to(dtype)
    return _Sample.apply(locations, views, weights, *features).to(dtype)


def sample_views_reference(
    features: Sequence[Tensor],
    locations: Tensor,
    views: Tensor,
    weights: Tensor,
) -> Tensor:
    """``sample_views`` in plain torch: the cameras are the depth axis of a volume."""
    batch, queries, groups, frames, points = views.shape[:5]
    cameras, channels = features[0].shape[2:4]
    depth = views.to(locations.dtype) / max(cameras - 1, 1)
    grid = _by_slab(2 * torch.cat([locations, depth[..., None]], dim=-1) - 1)
    shares = _by_slab(weights)
    out = 0
    for number, level in enumerate(features):
        volume = level.unflatten(3, (groups, -1)).permute(0, 1, 3, 4, 2, 5, 6).flatten(0, 2)  # [BTG, C/G, N, H, W]
        seen = F.grid_sample(volume, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        out = out + (seen * shares[..., number][:, None]).sum(dim=-1)  # [BTG, C/G, Q, P]
    return out.view(batch, frames, groups, channels // groups, queries, points).permute(0, 4, 2, 1, 5, 3)


def _by_slab(values: Tensor) -> Tensor:
    """Return ``[B, Q, G, T, P, V, X]`` as ``[B T G, Q, P, V, X]``."""
    return values.permute(0, 3, 2, 1, 4, 5, 6).flatten(0, 2)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, locations: Tensor, views: Tensor, weights: Tensor, *features: Tensor) -> Tensor:
        ctx.save_for_backward(locations, views, weights, *features)
        groups, channels = locations.shape[2], features[0].shape[3]
        out = locations.new_zeros(*views.shape[:5], channels // groups)
        _run(kernels.sample_level, features, (locations, views, weights), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        locations, views, weights, *features = ctx.saved_tensors
        gradients = gradients.contiguous()
        to_locations, to_weights = torch.zeros_like(locations), torch.zeros_like(weights)
        needed = ctx.needs_input_grad[3:]
        to_features = [
            _channels_last(level).new_zeros(_channels_last(level).shape if need else (0,) * 6)
            for level, need in zip(features, needed, strict=True)
        ]
        _run(
            kernels.sample_level_backward,
            features,
            (locations, views, weights),
            gradients,
            to_features,
            to_locations,
            to_weights,
        )
        back = [
            level.permute(0, 1, 2, 5, 3, 4) if need else None for level, need in zip(to_features, needed, strict=True)
        ]
        return to_locations, None, to_weights, *back


def _run(kernel: Any, features: Sequence[Tensor], points: Sequence[Tensor], *results: Any) -> None:
    """Call a kernel for each level; a result that is a list has one tensor a level."""
    batch, _, groups, frames = points[0].shape[:4]
    slabs = batch * frames * groups
    channels = features[0].shape[3] // groups
    bounds = threads.even(slabs, points[1].numel() * CORNERS * channels) if slabs else [0, 0]
    shared = [tensor.detach().contiguous().numpy() for tensor in points]
    for number, level in enumerate(features):
        image = _channels_last(level.detach()).contiguous().numpy()
        own = [(each[number] if isinstance(each, list) else each).numpy() for each in results]
        threads.run(kernel, bounds, image, *shared, number, *own)


def _channels_last(level: Tensor) -> Tensor:
    """Return ``[B, T, N, C, H, W]`` as ``[B, T, N, H, W, C]``."""
    return level.permute(0, 1, 2, 4, 5, 3)


def _check(features: Sequence[Tensor], locations: Tensor, views: Tensor, weights: Tensor) -> None:
    if not features:
        raise ValueError("features: expected at least one level")
    check_tensor("features[0]", features[0], (None,) * 6, FLOATS)
    batch, frames, cameras, channels = features[0].shape[:4]
    for number, level in enumerate(features):
        check_tensor(f"features[{number}]", level, (batch, frames, cameras, channels, None, None), (features[0].dtype,))
    check_tensor("views", views, (batch, None, None, frames, None, None), (torch.int64,))
    check_tensor("locations", locations, (*views.shape, 2), FLOATS)
    check_tensor("weights", weights, (*views.shape, len(features)), FLOATS)
    check_same_device(features=features[0], locations=locations, views=views, weights=weights)
    check_index("views", views, cameras)
    if channels % views.shape[2]:
        raise ValueError(f"features: {channels} channels are not divisible by {views.shape[2]} groups")
