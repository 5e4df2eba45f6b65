"""What focal convolutions do with the voxels of a sample: which they keep as foreground, and which they grow.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparse3d_ops import lookup

from ..models import FocalConv, FocalEncoder
from ..structures import Grid
from ..visualization.focus import Focus


@contextmanager
def watch_focals(encoder: FocalEncoder) -> Iterator[list[Focus]]:
    """Collect what each focal convolution does while the encoder is called within the ``with`` block.

    The encoder is to be called on one sample.
    """
    seen: list[Focus] = []
    handles = [
        focal.register_forward_hook(partial(_note, seen, title, 2 ** (number - 1)))
        for title, number, focal in _focals(encoder)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def voxel_centers(
    indices: Tensor,  # [N, 3]
    grid: Grid,
    stride: int,
) -> Tensor:
    """Return the centres ``[N, 3]`` float32 ``(x, y, z)`` in metres of voxels ``(z, y, x)`` ``stride`` cells long."""
    cells = (indices.flip(1).float() + 0.5) * stride
    return cells * cells.new_tensor(grid.voxel_size) + cells.new_tensor(grid.lower)


def _focals(encoder: FocalEncoder) -> Iterator[tuple[str, int, FocalConv]]:
    """Yield what each focal convolution is called, its stage, and itself."""
    for stage, focal in encoder.focals.items():
        yield f"stage {stage}", int(stage), focal
    if encoder.image_focal is not None:
        yield "stage 1 with images", 1, encoder.image_focal


@torch.no_grad()
def _note(seen: list[Focus], title: str, stride: int, focal: FocalConv, inputs: Any, outputs: Any) -> None:
    before, (after, importance) = inputs[0], outputs
    foreground = focal.growth.foreground(before, importance)
    new = lookup(before.sites.keys, after.sites.keys) < 0
    seen.append(
        Focus(
            title=title,
            background=before.indices[~foreground, 1:],
            foreground=before.indices[foreground, 1:],
            grown=after.indices[new, 1:],
            shape=before.spatial_shape[1:],
            stride=stride,
        )
    )
