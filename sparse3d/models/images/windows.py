"""Square windows of a grid of tokens: cut it up, and put it together again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_windows(
    x: Tensor,  # [N, H, W, C]
    size: int,
) -> Tensor:  # [N, H', W', C]
    """Add zeros below and on the right, up to a whole number of windows of ``size`` x ``size`` tokens."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % size, 0, -height % size))


def split_windows(
    x: Tensor,  # [N, H, W, C], H and W multiples of size
    size: int,
) -> Tensor:  # [N, H / size * W / size, size * size, C]
    """Return the windows of a grid, row by row, and the tokens of each, row by row."""
    grid = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [N, h, size, w, size, C]
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join_windows(
    windows: Tensor,  # [N, H / size * W / size, size * size, C]
    size: int,
    width: int,
) -> Tensor:  # [N, H, W, C]
    """Undo ``split_windows`` for a grid of this width."""
    grid = windows.unflatten(2, (size, size)).unflatten(1, (-1, width // size))  # [N, h, w, size, size, C]
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)
