"""Packed voxel keys: one int64 for the four indices of a voxel.

    key(b, z, y, x) = ((b * Z + z) * Y + y) * X + x          for a grid of (Z, Y, X) voxels

The key is row-major, so ascending keys are ascending ``(b, z, y, x)``. A grid whose last key does not fit in int64 is
refused. All of this is integer arithmetic: results are exact and the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._checks import INTEGERS, check_count, check_index, check_same_device, check_tensor
from ._numba import coords as kernels

MAX_EXTENT = 2**31 - 1  # a coordinate is an int32
MAX_CELLS = 2**63  # the last key is one less


def num_cells(spatial_shape: Sequence[int], batch_size: int) -> int:
    """Return the number of voxels of a batch of grids.

    Args:
        spatial_shape: voxels ``(z, y, x)``, each at least 1.
        batch_size: number of grids.

    Raises:
        ValueError: if an extent is not positive, or keys of the grid do not fit in int64.
    """
    extents = [int(extent) for extent in spatial_shape]
    if len(extents) != 3 or min(extents) < 1 or max(extents) > MAX_EXTENT:
        raise ValueError(f"spatial_shape: expected three extents (z, y, x) in [1, 2**31), got {tuple(spatial_shape)}")
    check_count("batch_size", batch_size, 0)
    cells = math.prod(extents) * batch_size
    if cells > MAX_CELLS:
        raise ValueError(f"spatial_shape {tuple(extents)} x batch_size {batch_size}: {cells} keys do not fit in int64")
    return cells


def pack(
    coords: Tensor,  # [N, 4]
    spatial_shape: Sequence[int],
    batch_size: int,
) -> Tensor:
    """Pack voxel indices into keys.

    Args:
        coords: ``[N, 4]`` int32 or int64 ``(batch, z, y, x)``.
        spatial_shape: voxels ``(z, y, x)``.
        batch_size: number of samples.

    Returns:
        Keys ``[N]`` int64.

    Raises:
        ValueError: if a coordinate lies outside the shape or the batch, or the grid is too large for int64 keys.
    """
    num_cells(spatial_shape, batch_size)
    check_tensor("coords", coords, (None, 4), INTEGERS)
    for axis, extent in enumerate((batch_size, *spatial_shape)):
        check_index(f"coords[:, {axis}] ({'bzyx'[axis]})", coords[:, axis], extent)
    b, z, y, x = coords.long().unbind(1)
    depth, height, width = spatial_shape
    return ((b * depth + z) * height + y) * width + x


def unpack(
    keys: Tensor,  # [N]
    spatial_shape: Sequence[int],
    batch_size: int,
) -> Tensor:
    """Return the voxel indices ``[N, 4]`` int32 ``(batch, z, y, x)`` of int64 keys ``[N]``; the inverse of ``pack``.

    Raises:
        ValueError: if a key belongs to no voxel of the grids.
    """
    check_tensor("keys", keys, (None,), (torch.int64,))
    check_index("keys", keys, num_cells(spatial_shape, batch_size))
    return split_keys(keys, spatial_shape)


def split_keys(keys: Tensor, spatial_shape: Sequence[int]) -> Tensor:
    """``unpack`` without its checks, for keys that were made here."""
    depth, height, width = spatial_shape
    if keys.device.type == "cpu":
        coords = np.empty((len(keys), 4), np.int32)
        kernels.split(keys.numpy(), depth, height, width, coords)
        return torch.from_numpy(coords)
    rows = keys // width
    layers = rows // height
    return torch.stack([layers // depth, layers % depth, rows % height, keys % width], dim=1).int()


def unique(
    keys: Tensor,  # [N]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sorted unique keys ``[U]``, the row of each key among them ``[N]``, and counts ``[U]``, all int64.

    Raises:
        ValueError: if ``keys`` is not an int64 vector.
    """
    check_tensor("keys", keys, (None,), (torch.int64,))
    return torch.unique(keys, return_inverse=True, return_counts=True)


def bev_cells(
    coords: Tensor,  # [N, 4]
    shape: Sequence[int],
) -> Tensor:
    """Return the cell ``(batch * Y + y) * X + x`` ``[N]`` int64 that each voxel lies in, seen from above.

    Args:
        coords: ``[N, 4]`` integer ``(batch, z, y, x)``.
        shape: cells ``(y, x)`` of a sample.
    """
    height, width = shape
    batch, _, y, x = coords.long().unbind(1)
    return (batch * height + y) * width + x


def lookup(
    keys: Tensor,  # [N]
    queries: Tensor,  # [Q]
) -> Tensor:
    """Find keys among sorted keys.

    Args:
        keys: ``[N]`` int64, ascending and unique.
        queries: ``[Q]`` int64.

    Returns:
        ``[Q]`` int64: the row of each query in ``keys``, -1 where it is absent.

    Raises:
        ValueError: if a tensor is not an int64 vector, or ``keys`` is not strictly ascending.
    """
    check_tensor("keys", keys, (None,), (torch.int64,))
    check_tensor("queries", queries, (None,), (torch.int64,))
    check_same_device(keys=keys, queries=queries)
    if not bool((keys[1:] > keys[:-1]).all()):
        raise ValueError("keys: expected strictly ascending keys; see sparse3d_ops.unique")
    if len(keys) == 0:
        return torch.full_like(queries, -1)
    rows = torch.searchsorted(keys, queries)
    found = keys[rows.clamp(max=len(keys) - 1)] == queries
    return torch.where(found, rows, -1)
