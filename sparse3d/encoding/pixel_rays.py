"""What is known of the pixels of feature maps: the ray that each sees, and its place among all others.

    d_i = 1 + (x_max - 1) i (i + 1) / (D (D + 1))        depths along a ray, growing linearly

Source: PETR (Liu et al., ECCV 2022), section 3.2; MV2D (Wang et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.decoding.sparsebev import inverse_sigmoid

from .rois import Views
from .sine import sine_embedding

NEAREST = 1.0  # metres, the first point of a ray
EPS = 1e-6


@dataclass(frozen=True)
class PixelRays:
    """The rays and places of a map of V images.

    Args:
        position_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, which points are taken relative to.
        stride: pixels of the image in a pixel of the map.
        num_depths: D.
        channels: C, of which places have half for each of three numbers.
    """

    position_range: Sequence[float]
    stride: int
    num_depths: int
    channels: int

    def rays(self, views: Views, shape: Sequence[int]) -> Tensor:
        """Return the logits of the points of each pixel's ray, ``[B, V, 3 D, h, w]`` float64, depth after depth."""
        depths = self._depths(views.lidar2img)
        v, u = (
            (torch.arange(count, device=depths.device) + 0.5) * (side / count) - 0.5
            for count, side in zip(shape, views.image_size, strict=True)
        )
        pixels = torch.stack(torch.meshgrid(u.to(depths), v.to(depths), indexing="xy"), dim=-1)  # [h, w, 2]
        pixels = F.pad(pixels, (0, 1), value=1.0)[:, :, None] * depths[:, None]
        points = F.pad(pixels, (0, 1), value=1.0).flatten(0, 2)  # [h w D, 4]
        places = (points @ torch.linalg.inv(views.lidar2img).mT)[..., :3]
        low, high = places.new_tensor(self.position_range).split(3)
        logits = inverse_sigmoid((places - low) / (high - low))
        return logits.view(*logits.shape[:2], *shape, -1).movedim(-1, 2)

    def places(self, views: Views, shape: Sequence[int]) -> Tensor:
        """Return the sine embedding of view, row and column, counted without padding, ``[B, V, 3 C / 2, h, w]``.

        Counts are parts of the last one; rows and columns are counted in pixels of the image.
        """
        rows, columns = (torch.arange(count, device=views.sizes.device) * self.stride for count in shape)
        height, width = views.sizes[..., None, None].unbind(dim=2)
        shown = ((rows[:, None] < height) & (columns < width)).to(torch.float32)  # [B, V, h, w]
        counts = [shown.cumsum(1), *((shown.cumsum(axis) - 0.5) * self.stride for axis in (2, 3))]
        parts = [
            count / (count.narrow(axis, count.shape[axis] - 1, 1) + EPS)
            for axis, count in zip((1, 2, 3), counts, strict=True)
        ]
        embedded = [sine_embedding(part, self.channels // 2, interleaved=False) for part in parts]
        return torch.cat(embedded, dim=-1).movedim(-1, 2)

    def _depths(self, like: Tensor) -> Tensor:
        number = torch.arange(self.num_depths, dtype=like.dtype, device=like.device)
        step = (self.position_range[3] - NEAREST) / (self.num_depths * (self.num_depths + 1))
        return NEAREST + step * number * (number + 1)
