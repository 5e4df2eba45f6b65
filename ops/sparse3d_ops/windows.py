"""DSVT's windows and sets: which voxels attend to each other (Wang et al., CVPR 2023, section 3.2 and its code).

Windows, per axis, for a grid of S voxels, windows of W and a shift δ:

    p = coord + δ        window w = p // W        in-window coordinate r = p mod W        m = ceil(S / W) + 1 windows
    id = ((b * m_x + w_x) * m_y + w_y) * m_z + w_z,     renumbered without gaps in ascending order

A window as tall as the grid is not shifted along z. Sets of T slots: a window of n voxels has k = ceil(n / T) sets, and
its slot j = 0 ... kT - 1 holds the voxel of rank ⌊j n / (kT)⌋. So every voxel appears, repeats are neighbours in one
set, and the mask hides all but the first of them. Ranks follow one of two orders of the in-window coordinates:

    partition 0, y-major: (y, x, z)          partition 1, x-major: (x, y, z)

Everything is integer arithmetic on int64: exact, and the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import INTEGERS, check_count, check_index, check_tensor
from .coords import num_cells


@dataclass(frozen=True)
class Windows:
    """The window of each voxel.

    Args:
        ids: ``[N]`` int64, windows numbered without gaps.
        in_window: ``[N, 3]`` int64 ``(z, y, x)``, voxel indices inside the window.
        shape: extent of a window ``(z, y, x)`` in voxels.
    """

    ids: Tensor
    in_window: Tensor
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class SetPartition:
    """Two partitions of the voxels into sets of equal size.

    Args:
        indices: ``[2, S, T]`` int64, voxel rows; ``[0]`` is the y-major partition, ``[1]`` the x-major one.
        mask: ``[2, S, T]`` bool, True where the slot repeats the one before it: hidden as a key, not as a query.
    """

    indices: Tensor
    mask: Tensor


def partition_windows(
    coords: Tensor,  # [N, 4]
    spatial_shape: Sequence[int],
    window_shape: Sequence[int],
    shift: Sequence[int],
    batch_size: int,
) -> Windows:
    """Assign voxels to windows.

    Args:
        coords: ``[N, 4]`` int32 or int64 ``(batch, z, y, x)``.
        spatial_shape: voxels of the grid ``(z, y, x)``.
        window_shape: voxels of a window ``(z, y, x)``.
        shift: offset of the windows ``(z, y, x)`` in voxels, not negative and less than a window.
        batch_size: number of samples.

    Raises:
        ValueError: if a coordinate lies outside the grid or the batch, or a shape or shift is impossible.
    """
    shape, shift = _check_windows(coords, spatial_shape, window_shape, shift, batch_size)
    if spatial_shape[0] == shape[0]:
        shift = (0, *shift[1:])
    size = torch.tensor(shape, device=coords.device)
    moved = coords[:, 1:].long() + torch.tensor(shift, device=coords.device)
    wz, wy, wx = (moved // size).unbind(1)
    mz, my, mx = (-(-extent // window) + 1 for extent, window in zip(spatial_shape, shape, strict=True))
    official = ((coords[:, 0] * mx + wx) * my + wy) * mz + wz
    return Windows(torch.unique(official, return_inverse=True)[1], moved % size, shape)


def partition_sets(windows: Windows, set_size: int) -> SetPartition:
    """Cut each window's voxels into sets of ``set_size`` slots, in two orders.

    Args:
        windows: the window of each voxel; no two voxels may share a place.
        set_size: slots T of a set, at least 1.

    Returns:
        ``SetPartition``; sets are ordered by window, then by set number.

    Raises:
        ValueError: if ``set_size`` is less than 1.
    """
    check_count("set_size", set_size, 1)
    counts = torch.bincount(windows.ids)
    positions = _slot_positions(counts, set_size)
    z, y, x = windows.in_window.unbind(1)
    depth, height, width = windows.shape
    indices = torch.stack(
        [
            _order(windows.ids, (y * width + x) * depth + z, depth * height * width)[positions],
            _order(windows.ids, (x * height + y) * depth + z, depth * height * width)[positions],
        ]
    )
    mask = torch.zeros_like(indices, dtype=torch.bool)
    mask[..., 1:] = indices[..., 1:] == indices[..., :-1]
    return SetPartition(indices, mask)


def _slot_positions(counts: Tensor, set_size: int) -> Tensor:
    """Return the place ``[S, T]`` of each slot's voxel among all voxels sorted by window and rank."""
    sets = -(-counts // set_size)
    window = torch.repeat_interleave(sets)
    number = torch.arange(len(window), device=counts.device) - (sets.cumsum(0) - sets)[window]
    slot = number[:, None] * set_size + torch.arange(set_size, device=counts.device)
    rank = slot * counts[window, None] // (sets[window, None] * set_size)
    return (counts.cumsum(0) - counts)[window, None] + rank


def _order(ids: Tensor, place: Tensor, num_places: int) -> Tensor:
    """Return the voxel rows ``[N]`` sorted by window, then by place inside it."""
    return (ids * num_places + place).argsort(stable=True)


def _check_windows(
    coords: Tensor, spatial_shape: Sequence[int], window_shape: Sequence[int], shift: Sequence[int], batch_size: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Check the arguments of ``partition_windows`` and return window shape and shift as tuples."""
    num_cells(spatial_shape, batch_size)
    check_tensor("coords", coords, (None, 4), INTEGERS)
    for axis, extent in enumerate((batch_size, *spatial_shape)):
        check_index(f"coords[:, {axis}] ({'bzyx'[axis]})", coords[:, axis], extent)
    if len(window_shape) != 3 or min(window_shape) < 1:
        raise ValueError(f"window_shape: expected three positive extents (z, y, x), got {tuple(window_shape)}")
    if len(shift) != 3 or any(not 0 <= s < w for s, w in zip(shift, window_shape, strict=True)):
        raise ValueError(f"shift: expected (z, y, x) in [0, {tuple(window_shape)}), got {tuple(shift)}")
    depth, height, width = (int(extent) for extent in window_shape)
    dz, dy, dx = (int(offset) for offset in shift)
    return (depth, height, width), (dz, dy, dx)
