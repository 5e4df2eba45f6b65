"""The point branch of Focals Conv-F: focal convolutions that look into the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparse3d.encoding.image_sampling import ImageView, PixelRule
from sparse3d.registry import MODELS

from ..features import Features
from .sparse_branch import SparseConvBranch


@MODELS.register_module()
class FocalFusionBranch(SparseConvBranch):
    """A ``SparseConvBranch`` whose backbone, a ``FocalEncoder`` with ``image_focal``, sees what its voxels see.

    A camera that a sample does not have shows nothing: its voxels get what the other cameras see of them, or zeros.

    Args:
        pixels: arguments of ``PixelRule``: which pixel a voxel falls on.
        options: arguments of ``SparseConvBranch``.
    """

    def __init__(self, pixels: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.pixels = PixelRule(**(pixels or {}))

    def context(self, image_features: Features | None) -> dict[str, Any]:
        """Return how the backbone's voxels look into the images.

        Raises:
            ValueError: if there are no image features.
        """
        if image_features is None or image_features.images is None:
            raise ValueError("FocalFusionBranch: the detector has no image_branch, or it made no maps")
        maps, rigs, size = image_features.images[0], image_features.cameras, image_features.image_size
        return dict(look=ImageView(maps, rigs, size, self.grid, self.pixels))
