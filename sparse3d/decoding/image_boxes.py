"""Boxes in images: what is to be found, what 2D detectors find, and the choice among what they propose.

Images are numbered through a batch. Boxes are ``(x1, y1, x2, y2)`` in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse3d_ops import nms_2d


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes in N images, image after image.

    Args:
        boxes: ``[D, 4]`` float32.
        labels: ``[D]`` int64 in ``[0, K)``.
        images: ``[D]`` int64, ascending.
        num_images: N; images may be without boxes.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor
    num_images: int

    def of_image(self, number: int) -> Tensor:
        """Return the rows of an image, int64."""
        return (self.images == number).nonzero()[:, 0]


@dataclass(frozen=True)
class ImageDetections(ImageBoxes):
    """What a 2D detector finds.

    Args:
        scores: ``[D]`` in [0, 1], descending in each image.
        features: ``[D, C]``, what the detector knows of each object, or None if it has no such thing.
    """

    scores: Tensor
    features: Tensor | None = None

    def add(self, others: ImageDetections) -> ImageDetections:
        """Return these and others of the same images; others come after these in each image."""
        images = torch.cat([self.images, others.images])
        order = images.argsort(stable=True)
        features = None
        if self.features is not None and others.features is not None:
            features = torch.cat([self.features, others.features])[order]
        return ImageDetections(
            boxes=torch.cat([self.boxes, others.boxes])[order],
            labels=torch.cat([self.labels, others.labels])[order],
            images=images[order],
            num_images=self.num_images,
            scores=torch.cat([self.scores, others.scores])[order],
            features=features,
        )

    def renumber(self, numbers: Tensor, num_images: int) -> ImageDetections:
        """Return the same with image i as number ``numbers[i]``, ascending, of ``num_images``."""
        return replace(self, images=numbers[self.images], num_images=num_images)

    @classmethod
    def stack(cls, parts: Sequence[ImageDetections]) -> ImageDetections:
        """Return the detections of all images of some parts, part after part."""
        total = sum(part.num_images for part in parts)
        first, found = 0, None
        for part in parts:
            own = part.renumber(first + torch.arange(part.num_images, device=part.images.device), total)
            found = own if found is None else found.add(own)
            first += part.num_images
        return found


def join(present: ImageDetections, past: ImageDetections, batch_size: int) -> ImageDetections:
    """Return the detections of all images of a batch, where those of each sample are the present and the past ones."""
    total = present.num_images + past.num_images
    number = torch.arange(total, device=present.images.device).view(batch_size, -1)
    own = present.num_images // batch_size
    first, second = (
        each.renumber(numbers.flatten(), total)
        for each, numbers in ((present, number[:, :own]), (past, number[:, own:]))
    )
    return first.add(second)


@dataclass(frozen=True)
class DetectionFilter:
    """Choose among boxes with a score for each class.

    Args:
        score_threshold: what a score has to exceed.
        nms_threshold: IoU above which the worse of two boxes goes, whatever their classes; None keeps both.
        max_boxes: boxes kept at most in an image.
        min_side: both sides have at least so many pixels.
    """

    score_threshold: float = 0.05
    nms_threshold: float | None = 0.6
    max_boxes: int = 75
    min_side: float = 8.0

    @torch.no_grad()
    def __call__(
        self,
        boxes: Tensor,  # [P, K, 4]
        scores: Tensor,  # [P, K]
        images: Tensor,  # [P]
        num_images: int,
        features: Tensor | None = None,  # [P, C]
    ) -> ImageDetections:
        """Return the chosen pairs of a box and a class."""
        rows, labels = (scores > self.score_threshold).nonzero(as_tuple=True)
        boxes, scores = boxes[rows, labels], scores[rows, labels]
        threshold = 1.0 if self.nms_threshold is None else self.nms_threshold
        kept = nms_2d(boxes, scores, threshold, batch_index=images[rows], max_output=self.max_boxes)
        kept = kept[((boxes[kept, 2:] - boxes[kept, :2]) >= self.min_side).all(dim=1)]
        kept = kept[images[rows[kept]].argsort(stable=True)]
        return ImageDetections(
            boxes=boxes[kept],
            labels=labels[kept],
            images=images[rows[kept]],
            num_images=num_images,
            scores=scores[kept],
            features=None if features is None else features[rows[kept]],
        )
