"""Features: what the branches of a detector hand to its head."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sparse3d.decoding.image_boxes import ImageDetections
from sparse3d.encoding.cell_heights import CellHeights
from sparse3d.structures import Cameras
from sparse3d_ops.sparse import SparseTensor


@dataclass(frozen=True)
class Features:
    """Feature maps of a batch and the auxiliary losses of the branch that made them.

    Args:
        bev: ``[B, C, Y, X]`` bird's-eye map in the config's grid, or None.
        sparse_bev: the cells ``(y, x)`` of such a map that hold something, or None.
        heights: of the points in each cell of ``bev``, or None.
        images: one ``[B, cameras, C, H, W]`` map a level, finest first, or None.
        detections: boxes in the images, which are numbered sample after sample, camera after camera; or None.
        losses: scalar auxiliary losses by name; empty outside training.
        cameras: the calibrated rig of each sample that the image maps belong to; empty without them.
        image_size: ``(height, width)`` of the images that the image maps were made of, padding included.
    """

    bev: Tensor | None = None
    sparse_bev: SparseTensor | None = None
    heights: CellHeights | None = None
    images: tuple[Tensor, ...] | None = None
    detections: ImageDetections | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    cameras: tuple[Cameras, ...] = ()
    image_size: tuple[int, int] | None = None

    def merge(self, other: Features) -> Features:
        """Return the union of two branches' features.

        Raises:
            ValueError: if both made a bird's-eye map, image maps, or a loss of the same name.
        """
        for name in ("bev", "sparse_bev", "images"):
            if getattr(self, name) is not None and getattr(other, name) is not None:
                raise ValueError(f"Features.merge: both branches made {name!r}; one of them has to fuse the other's")
        shared = self.losses.keys() & other.losses.keys()
        if shared:
            raise ValueError(f"Features.merge: both branches made the losses {sorted(shared)}")
        return Features(
            bev=other.bev if self.bev is None else self.bev,
            heights=other.heights if self.heights is None else self.heights,
            sparse_bev=other.sparse_bev if self.sparse_bev is None else self.sparse_bev,
            images=other.images if self.images is None else self.images,
            detections=other.detections if self.detections is None else self.detections,
            losses={**self.losses, **other.losses},
            cameras=self.cameras or other.cameras,
            image_size=self.image_size or other.image_size,
        )
