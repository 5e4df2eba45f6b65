"""Anchors at every pixel of a pyramid, what becomes of them, and the choice among them.

An anchor of stride s has its middle at the upper left corner of its pixel, s (column, row), and the area (8 s)².

Source: Faster R-CNN (Ren et al., NIPS 2015), section 3, level by level as in FPN (Lin et al., CVPR 2017), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d_ops import nms_2d

from .box_deltas import BoxDeltas

SCALE = 8
RATIOS = (0.5, 1.0, 2.0)  # height / width
STRIDE = 4  # of the finest level; each further one has twice the stride
ANCHOR_DELTAS = BoxDeltas()


@dataclass(frozen=True)
class Proposals:
    """Boxes that may hold an object, image after image.

    Args:
        boxes: ``[P, 4]``.
        images: ``[P]`` int64, ascending.
        scores: ``[P]``, descending in each image.
    """

    boxes: Tensor
    images: Tensor
    scores: Tensor


@dataclass(frozen=True)
class ProposalFilter:
    """Choose among the boxes of all levels.

    Args:
        max_proposals: proposals of an image.
        nms_threshold: IoU above which the worse of two proposals of a level goes.
    """

    max_proposals: int = 1000
    nms_threshold: float = 0.7

    @torch.no_grad()
    def __call__(
        self,
        boxes: Tensor,  # [N, A, 4]
        scores: Tensor,  # [N, A]
        levels: Tensor,  # [A]
    ) -> Proposals:
        """Return the chosen ones; boxes without extent are none.

        Args:
            boxes: in N images.
            scores: of the boxes.
            levels: int64, level that a box comes from.
        """
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        flat, score, level = boxes.flatten(0, 1), scores.flatten(), levels.repeat(len(boxes))
        extended = ~(flat[:, 2:] <= flat[:, :2]).any(dim=1)  # NaN stays, and is refused below
        flat, score, level, image = flat[extended], score[extended], level[extended], image[extended]
        kept = nms_2d(flat, score, self.nms_threshold, labels=level, batch_index=image, max_output=self.max_proposals)
        kept = kept[image[kept].argsort(stable=True)]
        return Proposals(flat[kept], image[kept], score[kept])


def best_anchors(
    logits: Sequence[Tensor],  # [N, A, h, w] each
    deltas: Sequence[Tensor],  # [N, 4 A, h, w] each
    sizes: Tensor,  # [N, 2]
    per_level: int,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, P, 4], [N, P], [P]
    """Return the best anchors of each level in their new shape, cut to the image, their scores and their levels."""
    boxes, scores, levels = [], [], []
    for number, (own, shifts, anchors) in enumerate(zip(*flatten_levels(logits, deltas), strict=True)):
        best, rows = own.sigmoid().topk(min(per_level, own.shape[1]), dim=1)
        shifts = shifts.gather(1, rows[..., None].expand(-1, -1, 4))
        boxes.append(ANCHOR_DELTAS.decode(anchors[rows], shifts, sizes[:, None].to(shifts)))
        scores.append(best)
        levels.append(rows.new_full(rows.shape[1:], number))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


def flatten_levels(
    logits: Sequence[Tensor], deltas: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return for each level logits ``[N, h w A]``, changes ``[N, h w A, 4]`` and anchors ``[h w A, 4]``."""
    return (
        [level.permute(0, 2, 3, 1).flatten(1) for level in logits],
        [level.permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in deltas],
        [make_anchors(level.shape[2:], STRIDE * 2**number, level.device) for number, level in enumerate(logits)],
    )


def make_anchors(shape: Sequence[int], stride: int, device: torch.device) -> Tensor:
    """Return the anchors ``[h w A, 4]`` of a level of ``shape`` ``(h, w)``, those of a pixel together, row by row."""
    ratios = torch.tensor(RATIOS, device=device).sqrt()
    half = torch.stack([1 / ratios, ratios], dim=1) * (SCALE * stride / 2)
    rows, columns = (torch.arange(length, device=device) * stride for length in shape)
    middles = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[..., None, :]
    return torch.cat([middles - half, middles + half], dim=-1).view(-1, 4)
