"""Multi-scale deformable attention over the images of several cameras: its weighted reads.

    out[b, q, g] = Σ_l Σ_p  weights[b, q, g, l, p] · bilinear(values[l][b, camera of q, channels of g], x, y)
    x = u W_l - 1/2,   y = v H_l - 1/2         u, v in parts of the image: 0 is its left edge, 1 its right one

A pixel outside of the image is zero. Queries of all cameras are read together: each looks at the image of its own.

The reads are those of `sampling.py`, level by level, whose u counts from pixel to pixel instead of from edge to edge.

Source: Deformable DETR (Zhu et al., ICLR 2021), eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._checks import FLOATS, check_index, check_same_device, check_tensor
from .sampling import sample_views


def deformable_attention(
    values: Sequence[Tensor],  # L of [B, N, C, H, W]
    locations: Tensor,  # [B, Q, G, L, P, 2]
    weights: Tensor,  # [B, Q, G, L, P]
    cameras: Tensor,  # [B, Q]
) -> Tensor:  # [B, Q, C]
    """Return what Q queries see with G heads of P points on each of L levels, in the dtype of the values.

    Differentiable once, with respect to values, locations and weights.

    Args:
        values: one map a level; those whose memory is channels-last are read where they are.
        locations: ``(u, v)`` of each point.
        weights: share of each point.
        cameras: int64 in ``[0, N)``, the camera that each query looks through.

    Raises:
        ValueError: if shapes or dtypes do not fit together, the heads do not divide the channels, or a camera is none.
    """
    _check(values, locations, weights, cameras)
    # A head's points are one point there that looks into as many views, so they are summed where they are read.
    views = cameras[:, :, None, None, None, None].expand(*weights.shape[:3], 1, 1, weights.shape[4])
    out = values[0].new_zeros(())
    for number, level in enumerate(values):
        level, places = _between_pixels(level, locations[:, :, :, number])
        shares = weights[:, :, :, number, :, None]
        out = out + sample_views([level[:, None]], places[:, :, :, None, None], views, shares[:, :, :, None, None])
    return out.flatten(2)


def deformable_attention_reference(
    values: Sequence[Tensor],
    locations: Tensor,
    weights: Tensor,
    cameras: Tensor,
) -> Tensor:
    """``deformable_attention`` in plain torch: every query looks through every camera, and its own one counts."""
    groups = locations.shape[2]
    out = values[0].new_zeros(())
    for number, level in enumerate(values):
        grid = (2 * locations[:, :, :, number] - 1).transpose(1, 2).flatten(0, 1)  # [B G, Q, P, 2]
        shares = weights[:, :, :, number].transpose(1, 2).flatten(0, 1)[:, None]  # [B G, 1, Q, P]
        for camera in range(level.shape[1]):
            maps = level[:, camera].unflatten(1, (groups, -1)).flatten(0, 1)  # [B G, C / G, H, W]
            seen = (F.grid_sample(maps, grid, align_corners=False) * shares).sum(dim=-1)  # [B G, C / G, Q]
            own = (cameras == camera)[..., None]
            out = out + own * seen.unflatten(0, (-1, groups)).flatten(1, 2).transpose(1, 2)
    return out


def _between_pixels(level: Tensor, locations: Tensor) -> tuple[Tensor, Tensor]:
    """Return a level and locations in it that count from its first pixel to its last one.

    A side of one pixel gets a second one of zeros, so that there is a length to count in.
    """
    height, width = level.shape[-2:]
    pixels = locations * locations.new_tensor([width, height]) - 0.5
    level = F.pad(level, (0, int(width == 1), 0, int(height == 1)))
    return level, pixels / locations.new_tensor([max(width - 1, 1), max(height - 1, 1)])


def _check(values: Sequence[Tensor], locations: Tensor, weights: Tensor, cameras: Tensor) -> None:
    if not values:
        raise ValueError("values: expected at least one level")
    check_tensor("values[0]", values[0], (None,) * 5, FLOATS)
    batch, num_cameras, channels = values[0].shape[:3]
    for number, level in enumerate(values):
        check_tensor(f"values[{number}]", level, (batch, num_cameras, channels, None, None), (values[0].dtype,))
    check_tensor("cameras", cameras, (batch, None), (torch.int64,))
    check_tensor("locations", locations, (*cameras.shape, None, len(values), None, 2), FLOATS)
    check_tensor("weights", weights, locations.shape[:-1], FLOATS)
    check_same_device(values=values[0], locations=locations, weights=weights, cameras=cameras)
    if not torch.compiler.is_compiling():  # a graph cannot look at values
        check_index("cameras", cameras, num_cameras)
    if channels % locations.shape[2]:
        raise ValueError(f"values: {channels} channels are not divisible by {locations.shape[2]} heads")
