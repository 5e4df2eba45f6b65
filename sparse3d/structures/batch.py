"""Batch: what the network reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .cameras import Cameras


@dataclass(frozen=True)
class Voxels:
    """Points sorted into the cells of a grid; see ``sparse3d_ops.voxelize``.

    Args:
        coords: ``[V, 4]`` int32 ``(batch, z, y, x)``, ascending.
        points: ``[P, F]`` float32, only the points that lie in a voxel.
        point_to_voxel: ``[P]`` int64, row of ``coords`` for each point.
        batch_size: number of samples, empty ones included.
    """

    coords: Tensor
    points: Tensor
    point_to_voxel: Tensor
    batch_size: int


@dataclass(frozen=True)
class Batch:
    """What the network reads, on its device.

    Args:
        batch_size: number of samples.
        points: ``[P, F]`` float32 of all samples, concatenated.
        batch_index: ``[P]`` int64, sample of each point.
        voxels: the points sorted into the config's grid, or None.
        images: ``[B, C, 3, H, W]`` normalised, or None.
        cameras: one ``Cameras`` a sample; empty without images.
    """

    batch_size: int
    points: Tensor | None = None
    batch_index: Tensor | None = None
    voxels: Voxels | None = None
    images: Tensor | None = None
    cameras: tuple[Cameras, ...] = field(default=())
