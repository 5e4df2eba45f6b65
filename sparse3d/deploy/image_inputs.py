"""From the images of a scan to the tensor that a graph takes, as training's preprocessor makes it.

name      shape            what
images    [1, N, 3, H, W]  (value - mean) / std, then zeros to the right and below, float32
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .named import Shape
from .sensor_scan import CameraScan, check_kind


@dataclass(frozen=True)
class ImageInputs:
    """How images become an input.

    Args:
        num_cameras: N.
        image_size: ``(height, width)`` of the images of a scan, in pixels.
        input_size: ``(H, W)`` of the network's input, padding included.
        mean: of each channel, as in training.
        std: likewise.
        bgr: whether the network reads blue, green, red.
    """

    num_cameras: int
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool

    @classmethod
    def of(cls, normalizer: Any, scan: CameraScan) -> ImageInputs:
        """Describe what an ``ImageNormalizer`` does to images of the sizes of a scan."""
        padded = normalizer([list(scan.images)])
        return cls(
            num_cameras=len(scan.cameras),
            image_size=tuple(scan.images.shape[-2:]),
            input_size=tuple(padded.shape[-2:]),
            mean=tuple(normalizer.mean.flatten().tolist()),
            std=tuple(normalizer.std.flatten().tolist()),
            bgr=normalizer.bgr,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ImageInputs:
        """Build from its fields as plain containers."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def __call__(self, scan: CameraScan) -> Tensor:
        """Return the input for one scan.

        Raises:
            ValueError: if there are no images, another number of them, or one of another size or dtype.
        """
        check_kind(scan, CameraScan)
        expected = [self.num_cameras, 3, *self.image_size]
        if list(scan.images.shape) != expected or scan.images.dtype != torch.uint8:
            raise ValueError(
                f"images: expected {expected} uint8, got {list(scan.images.shape)} "
                f"{str(scan.images.dtype).removeprefix('torch.')}"
            )
        if len(scan.cameras) != self.num_cameras:
            raise ValueError(f"cameras: expected {self.num_cameras}, as there are images, got {len(scan.cameras)}")
        images = scan.images.flip(1) if self.bgr else scan.images
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        below, right = (padded - own for padded, own in zip(self.input_size, self.image_size, strict=True))
        return F.pad((images - mean) / std, (0, right, 0, below))[None]

    @property
    def shape(self) -> Shape:
        """Shape of the input."""
        return (1, self.num_cameras, 3, *self.input_size)
