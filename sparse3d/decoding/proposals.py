"""Boxes that may hold an object, and the choice among them.

Source: Faster R-CNN (Ren et al., NIPS 2015), section 3.3, level by level as in FPN (Lin et al., CVPR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d_ops import nms_2d


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
