"""How a 2D detector is called; what it finds and learns from: `decoding/image_boxes.py`.

detections, losses = detector(maps, sizes, objects)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.decoding.image_boxes import ImageBoxes, ImageDetections


class Detector2D(BaseModule):
    """A detector of boxes in images, on the feature maps of an image branch."""

    @abstractmethod
    def forward(
        self,
        maps: Sequence[Tensor],
        sizes: Tensor,
        objects: ImageBoxes | None = None,
    ) -> tuple[ImageDetections, dict[str, Tensor]]:
        """Return detections, which have no gradient, and with ``objects`` the losses (scalars by name), else none.

        Args:
            maps: ``[N, C, h, w]`` a level, finest first.
            sizes: ``[N, 2]`` ``(height, width)`` of the images without padding.
            objects: what is to be found.
        """
