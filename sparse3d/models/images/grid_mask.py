"""GridMask: training images lose what lies between the stripes of a grid.

Source: GridMask Data Augmentation (Chen et al., 2020), with the stripes kept, as camera detectors use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Blank squares of a random grid, the same in all images of a batch.

    Args:
        probability: of blanking at all.
        ratio: width of the stripes that are kept, in their distance.
    """

    def __init__(self, probability: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        self.probability, self.ratio = probability, ratio

    def forward(self, images: Tensor) -> Tensor:
        """Mask ``[..., H, W]`` in training; distances are between 2 pixels and the height."""
        height, width = images.shape[-2:]
        if not self.training or height < 3 or float(torch.rand(())) >= self.probability:
            return images
        distance = int(torch.randint(2, height, ()))
        stripe = min(max(int(distance * self.ratio + 0.5), 1), distance - 1)
        phases = torch.randint(distance, (2,)).tolist()
        rows, columns = (
            (torch.arange(size, device=images.device) + phase) % distance < stripe
            for size, phase in zip((height, width), phases, strict=True)
        )
        return images * (rows[:, None] | columns)
