"""The image branch of a detector: images -> feature pyramids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.checkpoints.backbones import load_backbone
from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample

from ..features import Features
from .grid_mask import GridMask


@MODELS.register_module()
class ImageBranch(BaseModule):
    """Backbone and neck on every image of a batch.

    Args:
        backbone: images ``[N, 3, H, W]`` -> maps, finest first.
        neck: maps -> maps.
        grid_mask: arguments of ``GridMask``, which blanks parts of training images; None leaves them whole.
        num_frames: T, where the images of a sample are T frames, the present one first.
        gradient_frames: frames that are trained on; the others run one by one, without gradients and in eval mode.
            None trains on all.
        pretrained: path of weights for backbone (and neck, where the file has one), read when training begins; see
            ``load_backbone``.

    Raises:
        ValueError: if ``gradient_frames`` is not between 1 and ``num_frames``.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        grid_mask: Mapping[str, Any] | None = None,
        num_frames: int = 1,
        gradient_frames: int | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if gradient_frames is not None and not 1 <= gradient_frames <= num_frames:
            raise ValueError(f"gradient_frames: expected 1 to num_frames ({num_frames}), got {gradient_frames}")
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)
        self.num_frames, self.gradient_frames = num_frames, gradient_frames
        self.pretrained = pretrained
        self.to(memory_format=torch.channels_last)

    def init_weights(self) -> None:
        """Load the pretrained weights, if there are any to load."""
        super().init_weights()
        if self.pretrained is not None:
            load_backbone(self, self.pretrained)

    def forward(self, batch: Batch, samples: Sequence[Sample] = ()) -> Features:
        """Return the pyramids of a batch with their cameras.

        Raises:
            ValueError: if the batch has no images.
        """
        if batch.images is None:
            raise ValueError("ImageBranch: batch.images is None; give the Preprocessor `images`")
        images = batch.images if self.grid_mask is None else self.grid_mask(batch.images)
        return Features(
            images=tuple(self._by_gradient(images)), cameras=batch.cameras, image_size=tuple(images.shape[-2:])
        )

    def _by_gradient(self, images: Tensor) -> list[Tensor]:
        """Return maps ``[B, cameras, C, H, W]``; see ``gradient_frames``."""
        if self.gradient_frames is None or not self.training:
            return self.extract(images)
        frames = images.chunk(self.num_frames, dim=1)
        parts = [self.extract(torch.cat(frames[: self.gradient_frames], dim=1))]
        self.eval()
        with torch.no_grad():
            parts += [self.extract(frame) for frame in frames[self.gradient_frames :]]
        self.train()
        return [torch.cat(level, dim=1) for level in zip(*parts, strict=True)]

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return maps ``[B, cameras, C, H, W]`` of images ``[B, cameras, 3, H, W]``, finest first."""
        flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return [level.unflatten(0, images.shape[:2]) for level in self.neck(self.backbone(flat))]
