"""The region proposal network: anchors at every pixel of a pyramid, each with a score and a change of its shape.

Anchors and the choice among them: `decoding/proposals.py`.

Source: Faster R-CNN (Ren et al., NIPS 2015), section 3.1, on a pyramid as in FPN (Lin et al., CVPR 2017), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.image_boxes import ImageBoxes
from sparse3d.decoding.proposals import ANCHOR_DELTAS, RATIOS, ProposalFilter, Proposals, best_anchors, flatten_levels

from ..targets.iou_targets import IoUAssigner, draw

SAMPLES, POSITIVE_SHARE = 256, 0.5
UNTRAINED_STD = 0.01


class RegionProposalNetwork(nn.Module):
    """The network.

    Args:
        channels: width C of the maps.
        per_level: anchors of a level that are looked at, ``(in training, at test)``.
        max_proposals: proposals of an image.
        nms_threshold: IoU above which the worse of two proposals of a level goes.
    """

    def __init__(
        self,
        channels: int,
        per_level: tuple[int, int] = (2000, 1000),
        max_proposals: int = 1000,
        nms_threshold: float = 0.7,
    ) -> None:
        super().__init__()
        self.per_level = per_level
        self.filter = ProposalFilter(max_proposals, nms_threshold)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        self.coder = ANCHOR_DELTAS
        self.assigner = IoUAssigner(positive=0.7, negative=0.3, at_least=0.3)
        for layer in (self.convolution, self.scores, self.deltas):
            nn.init.normal_(layer.weight, std=UNTRAINED_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits ``[N, A, h, w]`` and changes ``[N, 4 A, h, w]`` of each level of ``[N, C, h, w]``."""
        hidden = [F.relu(self.convolution(level)) for level in maps]
        return [self.scores(level) for level in hidden], [self.deltas(level) for level in hidden]

    @torch.no_grad()
    def propose(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Tensor, *, training: bool
    ) -> Proposals:
        """Return the best anchors of each image in their new shape, cut to the image (``sizes`` ``[N, 2]``)."""
        return self.filter(*best_anchors(logits, deltas, sizes, self.per_level[0 if training else 1]))

    def loss(self, logits: Sequence[Tensor], deltas: Sequence[Tensor], objects: ImageBoxes) -> dict[str, Tensor]:
        """Return the losses of what ``forward`` made: which anchors hold an object, and its shape."""
        per_level = list(zip(*flatten_levels(logits, deltas), strict=True))
        scores = torch.cat([own for own, _, _ in per_level], dim=1).float()
        shifts = torch.cat([own for _, own, _ in per_level], dim=1).float()
        anchors = torch.cat([own for _, _, own in per_level])
        for_class, for_box, count = scores.sum() * 0, shifts.sum() * 0, 0
        for number in range(objects.num_images):
            boxes = objects.boxes[objects.of_image(number)]
            found = self.assigner(anchors, boxes)
            positive, negative = draw(found, SAMPLES, POSITIVE_SHARE)
            chosen = torch.cat([positive, negative])
            wanted = (found[chosen] >= 0).to(scores)
            entropy = F.binary_cross_entropy_with_logits(scores[number, chosen], wanted, reduction="sum")
            change = self.coder.encode(anchors[positive], boxes[found[positive]])
            for_class = for_class + entropy
            for_box = for_box + (shifts[number, positive] - change).abs().sum()
            count += len(chosen)
        return {"loss_rpn_class": for_class / max(count, 1), "loss_rpn_box": for_box / max(count, 1)}
