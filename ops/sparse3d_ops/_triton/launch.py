"""Launch a kernel on the device of its tensors."""

from __future__ import annotations

import math
from typing import Any

import torch


def launch(kernel: Any, grid: tuple[int, ...], tensor: torch.Tensor, *arguments: Any, **options: Any) -> None:
    """Call a kernel with a tensor and further arguments, on the tensor's device, unless the grid is empty."""
    if math.prod(grid) > 0:
        with torch.cuda.device_of(tensor):
            kernel[grid](tensor, *arguments, **options)


def parts(count: int, size: int) -> int:
    """Return the number of parts of a size that cover a count."""
    return -(-count // size)
