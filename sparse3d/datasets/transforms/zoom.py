"""What detectors that fuse cameras with LiDAR do to images: zooming in place, mirroring with the world.

Source: SparseFusion (Xie et al., ICCV 2023), its published training pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...registry import TRANSFORMS
from ...structures import Sample
from .images import FlipImages, ImageMove, ResizeImages, Size, move_images


@TRANSFORMS.register_module()
class ZoomImages(ImageMove):
    """Scale each image by a factor; of one that grows, cut out a window of its former size at a random place.

    One that shrinks becomes smaller; the preprocessor pads it to the size of the others.

    Args:
        factors: ``(low, high)``, the factor is drawn evenly between them.
        shared: one factor and one place for all cameras.
    """

    def __init__(self, factors: Sequence[float] = (0.9, 1.1), shared: bool = False) -> None:
        super().__init__(shared)
        self.resize = ResizeImages(factors)

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the scaling and the shift."""
        matrix, grown = self.resize.draw(size, rng)
        spare = [max(now - before, 0) for now, before in zip(grown, size, strict=True)]
        top, left = (rng.uniform(0, room) for room in spare)
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        return shift @ matrix, (min(grown[0], size[0]), min(grown[1], size[1]))


@TRANSFORMS.register_module()
class MirrorImagesWithWorld:
    """Mirror all images left to right where the points are mirrored, so that the cameras are turned, not mirrored."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample, with mirrored ``images`` and ``cameras`` where ``lidar_aug`` mirrors."""
        if np.linalg.det(sample.lidar_aug[:3, :3]) > 0:
            return sample
        flip = FlipImages(1.0)
        return move_images(sample, [flip.draw(tuple(size), rng) for size in sample.cameras.image_sizes.tolist()])


@TRANSFORMS.register_module()
class MarkVisible:
    """Set ``gt.visible`` ``[N]`` bool: a camera sees the centre of the object, before images are cut.

    It comes before everything that moves images, as the published annotations are made of images as recorded.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``gt.visible``."""
        gt = sample.gt.clone()
        gt.visible = sample.cameras.visible(gt.boxes.centers).any(dim=0)
        return sample.replace(gt=gt)
