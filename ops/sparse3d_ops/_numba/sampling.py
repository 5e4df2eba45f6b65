"""Bilinear reads of image features on a CPU, and their gradients, one level at a time.

Rows are slabs (sample, frame, group of channels): no two of them write to the same number, so any number of threads
gives the same bits. Features are channels-last, so a corner of a pixel is one run of a group's channels. Corners
outside of the image are skipped, and nothing is read at all for a location further out than one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from . import threads

CORNERS = 4
# Sums over channels may be reordered, which lets them use vector registers; NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=SUMS)
def sample_level(
    start: int,
    stop: int,
    features: np.ndarray,  # [B, T, N, H, W, C]
    locations: np.ndarray,  # [B, Q, G, T, P, V, 2]
    views: np.ndarray,  # [B, Q, G, T, P, V] int64
    weights: np.ndarray,  # [B, Q, G, T, P, V, L]
    level: int,
    out: np.ndarray,  # [B, Q, G, T, P, C / G], added to
) -> None:
    """Add what each point sees in one level, over its views."""
    num_frames, height, width = features.shape[1], features.shape[3], features.shape[4]
    num_queries, num_groups = locations.shape[1], locations.shape[2]
    channels = out.shape[5]
    for slab in range(start, stop):
        group = slab % num_groups
        frame = slab // num_groups % num_frames
        sample = slab // num_groups // num_frames
        first = group * channels
        for query in range(num_queries):
            for point in range(locations.shape[4]):
                row = out[sample, query, group, frame, point]
                for view in range(locations.shape[5]):
                    weight = weights[sample, query, group, frame, point, view, level]
                    if weight == 0:
                        continue
                    x = locations[sample, query, group, frame, point, view, 0] * (width - 1)
                    y = locations[sample, query, group, frame, point, view, 1] * (height - 1)
                    if x != x or y != y:
                        row[:] = np.nan
                        continue
                    if not (-1 < x < width and -1 < y < height):
                        continue
                    image = features[sample, frame, views[sample, query, group, frame, point, view]]
                    left, top = int(np.floor(x)), int(np.floor(y))
                    for corner in range(4):
                        i, j = top + corner // 2, left + corner % 2
                        share = weight * (1 - abs(y - i)) * (1 - abs(x - j))
                        if 0 <= i < height and 0 <= j < width:
                            pixel = image[i, j, first : first + channels]
                            for channel in range(channels):
                                row[channel] += share * pixel[channel]


@njit(cache=True, nogil=True, fastmath=SUMS)
def sample_level_backward(
    start: int,
    stop: int,
    features: np.ndarray,  # [B, T, N, H, W, C]
    locations: np.ndarray,  # [B, Q, G, T, P, V, 2]
    views: np.ndarray,  # [B, Q, G, T, P, V] int64
    weights: np.ndarray,  # [B, Q, G, T, P, V, L]
    level: int,
    gradients: np.ndarray,  # [B, Q, G, T, P, C / G]
    to_features: np.ndarray,  # like features, added to; or empty where nobody wants it
    to_locations: np.ndarray,  # like locations, added to
    to_weights: np.ndarray,  # like weights, this level is written
) -> None:
    """Add one level's gradients with respect to features, locations and weights."""
    num_frames, height, width = features.shape[1], features.shape[3], features.shape[4]
    num_queries, num_groups = locations.shape[1], locations.shape[2]
    channels = gradients.shape[5]
    wanted = to_features.size > 0
    for slab in range(start, stop):
        group = slab % num_groups
        frame = slab // num_groups % num_frames
        sample = slab // num_groups // num_frames
        first = group * channels
        for query in range(num_queries):
            for point in range(locations.shape[4]):
                row = gradients[sample, query, group, frame, point]
                for view in range(locations.shape[5]):
                    weight = weights[sample, query, group, frame, point, view, level]
                    place = locations[sample, query, group, frame, point, view]
                    x, y = place[0] * (width - 1), place[1] * (height - 1)
                    if not (-1 < x < width and -1 < y < height):
                        continue
                    camera = views[sample, query, group, frame, point, view]
                    left, top = int(np.floor(x)), int(np.floor(y))
                    along_x = along_y = total = weight * 0
                    for corner in range(4):
                        i, j = top + corner // 2, left + corner % 2
                        if not (0 <= i < height and 0 <= j < width):
                            continue
                        in_x, in_y = 1 - abs(x - j), 1 - abs(y - i)
                        pixel = features[sample, frame, camera, i, j, first : first + channels]
                        product = weight * 0
                        for channel in range(channels):
                            product += row[channel] * pixel[channel]
                        total += in_x * in_y * product
                        along_x += in_y * product if corner % 2 else -in_y * product
                        along_y += in_x * product if corner // 2 else -in_x * product
                        if wanted and weight != 0:
                            share = weight * in_x * in_y
                            back = to_features[sample, frame, camera, i, j, first : first + channels]
                            for channel in range(channels):
                                back[channel] += share * row[channel]
                    to_weights[sample, query, group, frame, point, view, level] = total
                    to_place = to_locations[sample, query, group, frame, point, view]
                    to_place[0] += weight * (width - 1) * along_x
                    to_place[1] += weight * (height - 1) * along_y


def run(kernel: Any, features: Sequence[Tensor], points: Sequence[Tensor], *results: Any) -> None:
    """Call a kernel for each level ``[B, T, N, H, W, C]``; a result that is a list has one tensor a level."""
    batch, _, groups, frames = points[0].shape[:4]
    slabs = batch * frames * groups
    channels = features[0].shape[5] // groups
    bounds = threads.even(slabs, points[1].numel() * CORNERS * channels) if slabs else [0, 0]
    shared = [tensor.detach().contiguous().numpy() for tensor in points]
    for number, level in enumerate(features):
        own = [(each[number] if isinstance(each, list) else each).numpy() for each in results]
        threads.run(kernel, bounds, level.numpy(), *shared, number, *own)
