"""Which regions of other images may show what a region shows, by geometry alone.

What a region shows lies in a frustum. A grid of its pixels, at several depths, is projected into every other image:

    d_i = 0.5 + (70 - 0.5) i (i + 1) / (8 · 9),    i = 0 ... 7

If a point falls into a region of that image, the image's regions are compared with the box around all points there, by
IoU, and the best ones are related.

Source: MV2D (Wang et al., ICCV 2023), section 3.4; the choice of the best after its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rois import RoIs, Views

GRID = 4  # pixels along each side of a region, its borders included
DEPTHS = 8
NEAREST, FARTHEST = 0.5, 70.0  # metres
IOU_EPS = 1e-4  # pixels², added to the union


def related_rois(
    rois: RoIs,
    views: Views,
    top_k: int | None = 1,
) -> Tensor:  # [B, Q, Q]
    """Return whether the column may show what the row shows; a region is related to itself.

    Args:
        rois: Q regions of each sample.
        views: the images.
        top_k: regions of each other image that are related at most; None relates all that overlap.
    """
    pixels, inside = _project(rois, views)  # [B, Q, V, D, 2], [B, Q, V, D]
    table = _by_view(rois, views.seeing.shape[1])
    boxes = rois.boxes.double()[torch.arange(len(table), device=table.device)[:, None, None], table.clamp(min=0)]
    filled = (table >= 0)[:, None]  # [B, 1, V, P]
    hits = [_hits(*each) for each in zip(pixels.unbind(2), inside.unbind(2), boxes.unbind(1), strict=True)]
    candidate = (torch.stack(hits, dim=2) & filled).any(dim=-1, keepdim=True)
    ious = _ious(pixels, inside, boxes).where(filled & candidate, 0)
    best, places = ious.topk(ious.shape[-1] if top_k is None else min(top_k, ious.shape[-1]), dim=-1)
    chosen = torch.zeros_like(ious, dtype=torch.bool).scatter(-1, places, best > 0)
    own = torch.eye(rois.valid.shape[1], dtype=torch.bool, device=chosen.device)
    return _by_roi(chosen, table, len(own)) & rois.valid[:, :, None] | own


def _project(rois: RoIs, views: Views) -> tuple[Tensor, Tensor]:
    """Return where the points of each region lie in all images, and whether they lie inside of another image."""
    lidar2img = views.lidar2img
    to_others = lidar2img[:, None] @ rois.pick(torch.linalg.inv(lidar2img))[:, :, None]  # [B, Q, V, 4, 4]
    seen = _frustum_points(rois.boxes.double())[:, :, None] @ to_others.mT
    depths = seen[..., 2]
    in_front = depths >= NEAREST
    pixels = seen[..., :2] / depths.where(in_front, 1)[..., None]
    height, width = views.image_size
    last = pixels.new_tensor([width - 1, height - 1])
    inside = in_front & ((pixels >= 0) & (pixels <= last)).all(dim=-1)
    number = torch.arange(lidar2img.shape[1], device=depths.device)
    other = (rois.views[..., None] != number) & views.seeing[:, None]
    return pixels, inside & other[..., None]


def _frustum_points(boxes: Tensor) -> Tensor:
    """Return ``[B, Q, D, 4]``: ``(u d, v d, d, 1)`` of a grid of pixels of each box at several depths."""
    step = torch.linspace(0, 1, GRID, dtype=boxes.dtype, device=boxes.device)
    parts = torch.cartesian_prod(step, step)
    number = torch.arange(DEPTHS, dtype=boxes.dtype, device=boxes.device)
    depths = NEAREST + (FARTHEST - NEAREST) / (DEPTHS * (DEPTHS + 1)) * number * (number + 1)
    pixels = boxes[..., None, :2] + (boxes[..., 2:] - boxes[..., :2])[..., None, :] * parts
    points = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)[..., None, :] * depths[:, None]
    return torch.nn.functional.pad(points, (0, 1), value=1.0).flatten(2, 3)


def _by_view(rois: RoIs, num_views: int) -> Tensor:
    """Return the regions of each image, ``[B, V, P]`` int64, -1 where there are less than P."""
    number = torch.arange(num_views, device=rois.views.device)
    belongs = (rois.views[..., None] == number) & rois.valid[..., None]  # [B, Q, V]
    ranks = belongs.cumsum(dim=1) - 1
    most = max(int(belongs.sum(dim=1).max()), 1)
    table = torch.full((len(belongs), num_views, most), -1, device=belongs.device)
    sample, roi, view = belongs.nonzero(as_tuple=True)
    return table.index_put((sample, view, ranks[sample, roi, view]), roi)


def _hits(pixels: Tensor, inside: Tensor, boxes: Tensor) -> Tensor:
    """Return whether a point ``[B, Q, D, 2]`` of a row falls into a box ``[B, P, 4]`` of the image, ``[B, Q, P]``."""
    places, boxes = pixels[..., None, :], boxes[:, None, None]
    within = (places >= boxes[..., :2]) & (places <= boxes[..., 2:])
    return (within.all(dim=-1) & inside[..., None]).any(dim=2)


def _ious(pixels: Tensor, inside: Tensor, boxes: Tensor) -> Tensor:
    """Return the IoU ``[B, Q, V, P]`` of boxes ``[B, V, P, 4]`` with those around the points inside of the image."""
    low = pixels.where(inside[..., None], torch.inf).amin(dim=3)[..., None, :]
    high = pixels.where(inside[..., None], -torch.inf).amax(dim=3)[..., None, :]
    boxes = boxes[:, None]
    common = (torch.minimum(high, boxes[..., 2:]) - torch.maximum(low, boxes[..., :2])).clamp(min=0).prod(dim=-1)
    areas = (high - low).clamp(min=0).prod(dim=-1) + (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    return common / (areas - common + IOU_EPS)


def _by_roi(chosen: Tensor, table: Tensor, count: int) -> Tensor:
    """Return ``[B, Q, V, P]`` as ``[B, Q, Q]``."""
    sample, view, place = (table >= 0).nonzero(as_tuple=True)
    related = torch.zeros(*chosen.shape[:2], count, dtype=torch.bool, device=chosen.device)
    related[sample, :, table[sample, view, place]] = chosen[sample, :, view, place]
    return related
