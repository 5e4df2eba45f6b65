"""DSVT's index work, done once a forward pass: windows, sets, and the voxels of the next stage.

Nothing here depends on features. The definitions of windows and sets are in `sparse3d_ops.windows`; all triples are
`(z, y, x)` in voxels.

Pooling by a stride D:   parent = coord // D,   slot of the child = ((x mod Dx) * Dy + y mod Dy) * Dz + z mod Dz

Source: DSVT (Wang et al., CVPR 2023), sections 3.2 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d_ops import Segments, pack, partition_sets, partition_windows, unique, unpack

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class WindowLayout:
    """One way of cutting the grid into windows.

    Args:
        shape: extent of a window ``(z, y, x)``.
        shift: offset of the windows ``(z, y, x)``.
    """

    shape: Triple
    shift: Triple


@dataclass(frozen=True)
class Sets:
    """One partition of the voxels into sets of equal size.

    Args:
        slots: the S * T slots grouped by voxel; ``slots.index`` is the voxel of each slot.
        mask: ``[S, T]`` bool, True for a repeat, which is hidden as a key.
        first: ``[N]`` int64, the first slot of each voxel. A voxel's slots lie in one set and attend alike, so any
            of them can stand for it.
    """

    slots: Segments
    mask: Tensor
    first: Tensor


@dataclass(frozen=True)
class Partition:
    """The voxels of a stage under one window layout.

    Args:
        positions: ``[N, 3]`` float32 ``(x, y, z)``, place of each voxel from the middle of its window, in voxels.
        sets: the y-major and the x-major sets; None where no block uses this layout's.
    """

    positions: Tensor
    sets: tuple[Sets, Sets] | None


@dataclass(frozen=True)
class PooledVoxels:
    """The voxels of the next stage.

    Args:
        coords: ``[M, 4]`` int32 ``(batch, z, y, x)``, ascending.
        parent: ``[N]`` int64, row of ``coords`` that each voxel falls into.
        slot: ``[N]`` int64, place of each voxel inside its parent.
    """

    coords: Tensor
    parent: Tensor
    slot: Tensor


def partition(
    coords: Tensor,  # [N, 4]
    spatial_shape: Triple,
    layout: WindowLayout,
    set_size: int,
    batch_size: int,
    *,
    with_sets: bool,
) -> Partition:
    """Place voxels in the windows of a layout and, if asked, cut the windows into sets."""
    windows = partition_windows(coords, spatial_shape, layout.shape, layout.shift, batch_size)
    middle = torch.tensor(layout.shape, dtype=torch.float32, device=coords.device) / 2
    positions = (windows.in_window - middle).flip(1)
    if not with_sets:
        return Partition(positions, None)
    both = partition_sets(windows, set_size)
    y_major, x_major = (_sets(*each, len(coords)) for each in zip(both.indices, both.mask, strict=True))
    return Partition(positions, (y_major, x_major))


def _sets(indices: Tensor, mask: Tensor, num_voxels: int) -> Sets:
    slots = Segments.from_index(indices.flatten(), num_voxels)
    return Sets(slots, mask, slots.order[slots.offsets[:-1]])


def pooled_shape(spatial_shape: Triple, stride: Triple) -> Triple:
    """Return the grid ``(z, y, x)`` after pooling, rounded up."""
    z, y, x = (-(-extent // step) for extent, step in zip(spatial_shape, stride, strict=True))
    return z, y, x


def pool_voxels(
    coords: Tensor,  # [N, 4]
    spatial_shape: Triple,
    stride: Triple,
    batch_size: int,
) -> PooledVoxels:
    """Find the parents of voxels; no two children share a parent's slot."""
    steps = torch.tensor((1, *stride), dtype=coords.dtype, device=coords.device)
    shape = pooled_shape(spatial_shape, stride)
    keys, parent, _ = unique(pack(coords // steps, shape, batch_size))
    z, y, x = (coords % steps)[:, 1:].long().unbind(1)
    return PooledVoxels(unpack(keys, shape, batch_size), parent, (x * stride[1] + y) * stride[0] + z)
