"""Bilinear reads of image features on a GPU, and their gradients, one level at a time.

A program owns some points and all channels of their groups, and walks their views. A point's result and the gradients
of its locations and weights belong to one program; the gradient of features is added to by all that read a pixel, in
any order, so its last bits may differ from run to run, as those of torch's own grid sampling do.

Features are channels-last, so a corner of a pixel is one run of a group's channels. Corners outside of the image are
skipped, and nothing is read at all for a location further out than one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .launch import launch, parts

POINTS = 32  # of a program


@triton.jit
def owner(point, QUERIES, GROUPS: tl.constexpr, FRAMES: tl.constexpr, POINTS_EACH: tl.constexpr):
    """Return the frame, counted over all samples, and the group of points ``[B, Q, G, T, P]``, as int64."""
    frame = point // POINTS_EACH % FRAMES
    group = point // (POINTS_EACH * FRAMES) % GROUPS
    sample = point // (POINTS_EACH * FRAMES * GROUPS) // QUERIES
    return sample * FRAMES + frame, group


@triton.jit
def place(locations, at, valid, height, width):
    """Return pixels ``(x, y)`` of locations, and whether the image or the pixel around it is there."""
    x = tl.load(locations + at * 2, mask=valid, other=-2.0) * (width - 1)
    y = tl.load(locations + at * 2 + 1, mask=valid, other=-2.0) * (height - 1)
    near = (x > -1) & (x < width) & (y > -1) & (y < height)
    return x, y, near & valid


@triton.jit(do_not_specialize=["num_points", "num_queries", "level"])
def sample_level(
    features,  # [B, T, N, H, W, C]
    locations,  # [B, Q, G, T, P, V, 2]
    views,  # [B, Q, G, T, P, V] int64
    weights,  # [B, Q, G, T, P, V, L]
    out,  # [B, Q, G, T, P, C / G], added to
    num_points,  # B Q G T P
    num_queries,
    level,
    height, width, cameras,
    GROUPS: tl.constexpr, FRAMES: tl.constexpr, POINTS_EACH: tl.constexpr, VIEWS: tl.constexpr, LEVELS: tl.constexpr,
    CHANNELS: tl.constexpr,  # of a group
    LANES: tl.constexpr,  # a power of two that covers them
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Add what each point sees in one level, over its views."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = point < num_points
    frame, group = owner(point, num_queries, GROUPS, FRAMES, POINTS_EACH)
    channel = tl.arange(0, LANES)
    target = out + point[:, None] * CHANNELS + channel[None, :]
    there = valid[:, None] & (channel < CHANNELS)[None, :]
    total = tl.load(target, mask=there, other=0.0)
    for view in range(VIEWS):
        at = point * VIEWS + view
        weight = tl.load(weights + at * LEVELS + level, mask=valid, other=0.0)
        x, y, near = place(locations, at, valid, height, width)
        total += tl.where((weight != 0) & ((x != x) | (y != y)), float("nan"), 0.0)[:, None]
        near = near & (weight != 0)
        camera = tl.load(views + at, mask=near, other=0)
        image = features + (frame * cameras + camera) * height * width * (GROUPS * CHANNELS) + group * CHANNELS
        x, y = tl.where(near, x, 0.0), tl.where(near, y, 0.0)
        left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
        for corner in tl.static_range(4):
            i, j = top + corner // 2, left + corner % 2
            inside = near & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            pixel = tl.load(
                image[:, None] + (i * width + j).to(tl.int64)[:, None] * (GROUPS * CHANNELS) + channel[None, :],
                mask=inside[:, None] & there,
                other=0.0,
            )
            share = tl.where(inside, weight * (1 - tl.abs(y - i)) * (1 - tl.abs(x - j)), 0.0)
            total += share[:, None] * pixel
    tl.store(target, total, mask=there)


@triton.jit(do_not_specialize=["num_points", "num_queries", "level"])
def sample_level_backward(
    features,  # [B, T, N, H, W, C]
    locations,  # [B, Q, G, T, P, V, 2]
    views,  # [B, Q, G, T, P, V] int64
    weights,  # [B, Q, G, T, P, V, L]
    gradients,  # [B, Q, G, T, P, C / G]
    to_features,  # like features, added to if WANTED
    to_locations,  # like locations, added to
    to_weights,  # like weights, this level is written
    num_points,  # B Q G T P
    num_queries,
    level,
    height, width, cameras,
    GROUPS: tl.constexpr, FRAMES: tl.constexpr, POINTS_EACH: tl.constexpr, VIEWS: tl.constexpr, LEVELS: tl.constexpr,
    CHANNELS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
    WANTED: tl.constexpr,
):  # fmt: skip
    """Add one level's gradients with respect to features, locations and weights."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = point < num_points
    frame, group = owner(point, num_queries, GROUPS, FRAMES, POINTS_EACH)
    channel = tl.arange(0, LANES)
    there = valid[:, None] & (channel < CHANNELS)[None, :]
    gradient = tl.load(gradients + point[:, None] * CHANNELS + channel[None, :], mask=there, other=0.0)
    for view in range(VIEWS):
        at = point * VIEWS + view
        weight = tl.load(weights + at * LEVELS + level, mask=valid, other=0.0)
        x, y, near = place(locations, at, valid, height, width)
        camera = tl.load(views + at, mask=near, other=0)
        first = (frame * cameras + camera) * height * width * (GROUPS * CHANNELS) + group * CHANNELS
        x, y = tl.where(near, x, 0.0), tl.where(near, y, 0.0)
        left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
        total, along_x, along_y = tl.zeros_like(weight), tl.zeros_like(weight), tl.zeros_like(weight)
        for corner in tl.static_range(4):
            i, j = top + corner // 2, left + corner % 2
            inside = near & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            pixel = first[:, None] + (i * width + j).to(tl.int64)[:, None] * (GROUPS * CHANNELS) + channel[None, :]
            reads = inside[:, None] & there
            product = tl.sum(gradient * tl.load(features + pixel, mask=reads, other=0.0), axis=1)
            in_x, in_y = 1 - tl.abs(x - j), 1 - tl.abs(y - i)
            total += in_x * in_y * product
            along_x += in_y * product if corner % 2 else -in_y * product
            along_y += in_x * product if corner // 2 else -in_x * product
            if WANTED:
                share = (weight * in_x * in_y)[:, None] * gradient
                tl.atomic_add(to_features + pixel, share, mask=reads & (weight != 0)[:, None], sem="relaxed")
        tl.store(to_weights + at * LEVELS + level, total, mask=valid)
        to_x = to_locations + at * 2
        tl.store(to_x, tl.load(to_x, mask=near, other=0.0) + weight * (width - 1) * along_x, mask=near)
        tl.store(to_x + 1, tl.load(to_x + 1, mask=near, other=0.0) + weight * (height - 1) * along_y, mask=near)


def run(kernel: Any, features: Sequence[Tensor], points: Sequence[Tensor], *results: Any) -> None:
    """Call a kernel for each level ``[B, T, N, H, W, C]``; a result that is a list has one tensor a level."""
    locations, views, weights = (tensor.detach().contiguous() for tensor in points)
    _, queries, groups, frames, points_each, num_views = views.shape
    channels = features[0].shape[5] // groups
    options: dict[str, Any] = {}
    if kernel is sample_level_backward:
        options["WANTED"] = results[1][0].numel() > 0
    num_points = views.numel() // max(num_views, 1)
    for number, level in enumerate(features):
        cameras, height, width = level.shape[2:5]
        launch(
            kernel,
            (parts(num_points, POINTS),),
            level,
            locations,
            views,
            weights,
            *(each[number] if isinstance(each, list) else each for each in results),
            num_points,
            queries,
            number,
            height,
            width,
            cameras,
            GROUPS=groups,
            FRAMES=frames,
            POINTS_EACH=points_each,
            VIEWS=num_views,
            LEVELS=len(features),
            CHANNELS=channels,
            LANES=triton.next_power_of_2(channels),
            BLOCK=POINTS,
            num_warps=4,
            **options,
        )
