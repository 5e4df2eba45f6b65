"""The image branch of a detector that looks at images from above: images -> features -> bird's-eye map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample

from ..features import Features
from ..layers.precision import full_precision
from .branch import ImageBranch
from .depth_supervision import depth_loss, depth_targets, gather_depth_maps


@MODELS.register_module()
class ImageBEVBranch(ImageBranch):
    """Backbone, neck, view transform and bird's-eye backbone.

    Args:
        backbone: images ``[N, 3, H, W]`` -> maps, finest first.
        neck: maps -> maps, of which the first is transformed.
        view_transform: features of the images, cameras, size of the images -> map, depth probabilities; it has
            ``depth_bins``.
        bev_backbone: map -> map.
        depth_weight: weight of the depth supervision; with 0 there is none, and training needs no points.
        options: further arguments of ``ImageBranch``.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        view_transform: dict,
        bev_backbone: dict,
        depth_weight: float = 3.0,
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, **options)
        self.view_transform = MODELS.build(view_transform)
        self.bev_backbone = MODELS.build(bev_backbone)
        self.depth_weight = depth_weight

    def forward(self, batch: Batch, samples: Sequence[Sample] = ()) -> Features:
        """Return the bird's-eye map of a batch; with ``samples`` also the loss of the depth supervision.

        Raises:
            ValueError: if the batch has no images, or a sample no depth maps to be supervised with.
        """
        seen = super().forward(batch)
        bev, probabilities = self.view_transform(seen.images[0], seen.cameras, seen.image_size)
        losses = self._depth_loss(probabilities, samples, seen.image_size) if samples and self.depth_weight else {}
        return Features(bev=self.bev_backbone(bev), losses=losses)

    @full_precision
    def _depth_loss(
        self, probabilities: Tensor, samples: Sequence[Sample], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        maps = gather_depth_maps(samples, image_size).to(probabilities.device)
        targets = depth_targets(maps, tuple(probabilities.shape[-2:]), self.view_transform.depth_bins)
        return {"loss_depth": self.depth_weight * depth_loss(probabilities, targets)}
