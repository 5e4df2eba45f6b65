"""Voxelization: points -> occupied voxels of a regular grid.

Rule, along each axis, in float32 (points of another dtype are rounded to it first):

    inside  <=>  lower <= p < upper
    index    =   min(floor((p - lower) / size), count - 1)       one rounded subtraction, one rounded division

The minimum matters for a point just below ``upper`` whose quotient is rounded up to ``count``. A point on ``upper`` is
outside, whatever its quotient is rounded to. These operations are rounded alike by every IEEE processor, so all
backends agree in every bit. With ``keep_outside_z`` a point above or below the range goes to the nearest layer.

Voxels are listed in ascending order of their packed key, that is of ``(batch, z, y, x)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._checks import check_columns, check_count, check_finite, check_index, check_same_device, check_tensor
from ._numba import threads
from ._numba import voxelize as kernels
from .coords import num_cells, split_keys
from .segment import Segments

WHOLE_TOLERANCE = 1e-3  # voxels; a range that misses a whole number of voxels by more is a mistake
MAX_COUNT = 2**24  # cells along an axis that float32 can still number
STEPS_A_POINT = 8  # elementary steps of finding a point's cell


@dataclass(frozen=True)
class Voxelization:
    """Occupied voxels and the voxel of each point.

    Args:
        coords: ``[V, 4]`` int32 ``(batch, z, y, x)``, ascending and unique.
        point_to_voxel: ``[P]`` int64, row of ``coords`` for each point, -1 for a point outside the range.
    """

    coords: Tensor
    point_to_voxel: Tensor


@dataclass(frozen=True)
class HardVoxelization:
    """Occupied voxels with a fixed number of point slots.

    Args:
        coords: ``[V, 4]`` int32 ``(batch, z, y, x)``, ascending and unique.
        voxels: ``[V, max_points, F]``, points in cloud order, zeros in empty slots.
        num_points: ``[V]`` int64, filled slots, 1 to ``max_points``.
    """

    coords: Tensor
    voxels: Tensor
    num_points: Tensor


def grid_shape(point_range: Sequence[float], voxel_size: Sequence[float]) -> tuple[int, int, int]:
    """Return the number of voxels ``(z, y, x)`` of a range.

    Args:
        point_range: ``(x0, y0, z0, x1, y1, z1)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.

    Raises:
        ValueError: if the range is empty, is no whole number of voxels, or has more than 2**24 along an axis.
    """
    if len(point_range) != 6 or len(voxel_size) != 3:
        raise ValueError(
            f"expected point_range (x0, y0, z0, x1, y1, z1) and voxel_size (x, y, z), "
            f"got {tuple(point_range)} and {tuple(voxel_size)}"
        )
    x, y, z = (
        _axis_count(axis, float(point_range[i]), float(point_range[i + 3]), float(voxel_size[i]))
        for i, axis in enumerate("xyz")
    )
    return z, y, x


def _axis_count(axis: str, low: float, high: float, size: float) -> int:
    if not (low < high and size > 0):
        raise ValueError(f"axis {axis}: range [{low}, {high}) with voxel size {size} is empty")
    count = (high - low) / size
    if not count <= MAX_COUNT or abs(count - round(count)) > WHOLE_TOLERANCE:
        raise ValueError(
            f"axis {axis}: range [{low}, {high}) is {count:.4f} voxels of {size}; "
            f"expected a whole number of at most {MAX_COUNT}"
        )
    return round(count)


def voxelize(
    points: Tensor,  # [P, 3 or more]
    batch_index: Tensor,  # [P]
    point_range: Sequence[float],
    voxel_size: Sequence[float],
    batch_size: int,
    *,
    keep_outside_z: bool = False,
) -> Voxelization:
    """Find the occupied voxels of a batch of point clouds; no cap on points or voxels.

    Args:
        points: ``[P, >= 3]`` floating point, columns ``x, y, z, ...`` in metres.
        batch_index: ``[P]`` int64, sample of each point.
        point_range: ``(x0, y0, z0, x1, y1, z1)`` in metres; the upper bound is outside.
        voxel_size: ``(x, y, z)`` in metres.
        batch_size: number of samples, empty ones included.
        keep_outside_z: put points above or below the range into the nearest layer, as DSVT's pillar encoder does.

    Returns:
        ``Voxelization``, the same on every device and at every number of threads.

    Raises:
        ValueError: if a tensor has another shape or dtype, a coordinate is NaN or infinite, a batch index lies
            outside ``[0, batch_size)``, or the range is no whole number of voxels.
    """
    shape = _check(points, batch_index, point_range, voxel_size, batch_size)
    if points.device.type != "cpu" or num_cells(shape, batch_size) > kernels.MAX_BITMAP_CELLS:
        return voxelize_reference(
            points, batch_index, point_range, voxel_size, batch_size, keep_outside_z=keep_outside_z
        )
    bounds = np.array([point_range[:3], point_range[3:], voxel_size], dtype=np.float32)
    extents = np.array(shape[::-1], dtype=np.int64)
    keys = np.empty(len(points), dtype=np.int64)
    arrays = (points.detach().float().contiguous().numpy(), batch_index.contiguous().numpy())
    ranges = threads.even(len(points), len(points) * STEPS_A_POINT)
    threads.run(kernels.cell_keys, ranges, *arrays, bounds, extents, keep_outside_z, keys)
    unique, rows = kernels.rank_in_bitmap(keys, num_cells(shape, batch_size))
    coords = torch.empty(len(unique), 4, dtype=torch.int32)
    ranges = threads.even(len(unique), len(unique) * STEPS_A_POINT)
    threads.run(kernels.split_keys, ranges, unique, extents, coords.numpy())
    return Voxelization(coords, torch.from_numpy(rows))


def voxelize_reference(
    points: Tensor,  # [P, 3 or more]
    batch_index: Tensor,  # [P]
    point_range: Sequence[float],
    voxel_size: Sequence[float],
    batch_size: int,
    *,
    keep_outside_z: bool = False,
) -> Voxelization:
    """``voxelize`` in plain torch: the definition, and the path of devices other than the CPU."""
    shape = _check(points, batch_index, point_range, voxel_size, batch_size)
    xyz = points.detach()[:, :3].float()
    # Tensors, not Python numbers: torch may multiply by a number's reciprocal instead of dividing.
    lower, upper, size = xyz.new_tensor([*point_range, *voxel_size]).view(3, 3)
    last = xyz.new_tensor(shape[::-1]) - 1
    inside = (xyz >= lower) & (xyz < upper)
    if keep_outside_z:
        inside[:, 2] = True
    x, y, z = ((xyz - lower) / size).floor().clamp(min=torch.zeros_like(last), max=last).long().unbind(1)
    keys = ((batch_index * shape[0] + z) * shape[1] + y) * shape[2] + x
    inside_grid = inside.all(dim=1)
    unique, rows = torch.unique(keys[inside_grid], return_inverse=True)
    point_to_voxel = torch.full_like(batch_index, -1)
    point_to_voxel[inside_grid] = rows
    return Voxelization(split_keys(unique, shape), point_to_voxel)


def voxelize_hard(
    points: Tensor,  # [P, F]
    batch_index: Tensor,  # [P]
    point_range: Sequence[float],
    voxel_size: Sequence[float],
    batch_size: int,
    max_points: int,
    max_voxels: int,
) -> HardVoxelization:
    """Sort points into voxels with a fixed number of slots.

    Each sample keeps its ``max_voxels`` voxels whose first points come first in the cloud, and each voxel its first
    ``max_points`` points in cloud order (the order of rows). Kept voxels are listed in ascending order of their keys.

    Args:
        points: ``[P, F >= 3]`` floating point, columns ``x, y, z, ...`` in metres.
        batch_index: ``[P]`` int64, sample of each point.
        point_range: ``(x0, y0, z0, x1, y1, z1)`` in metres; the upper bound is outside.
        voxel_size: ``(x, y, z)`` in metres.
        batch_size: number of samples, empty ones included.
        max_points: slots of a voxel, at least 1.
        max_voxels: voxels kept in each sample, at least 1.

    Returns:
        ``HardVoxelization``, the same on every device and at every number of threads.

    Raises:
        ValueError: as ``voxelize``, and if a cap is less than 1.
    """
    _check_caps(max_points, max_voxels)
    voxelization = voxelize(points, batch_index, point_range, voxel_size, batch_size)
    if points.device.type != "cpu":
        return _harden_reference(points, voxelization, batch_size, max_points, max_voxels)
    return _harden(points, voxelization, batch_size, max_points, max_voxels)


def voxelize_hard_reference(
    points: Tensor,  # [P, F]
    batch_index: Tensor,  # [P]
    point_range: Sequence[float],
    voxel_size: Sequence[float],
    batch_size: int,
    max_points: int,
    max_voxels: int,
) -> HardVoxelization:
    """``voxelize_hard`` in plain torch, on top of ``voxelize_reference``."""
    _check_caps(max_points, max_voxels)
    voxelization = voxelize_reference(points, batch_index, point_range, voxel_size, batch_size)
    return _harden_reference(points, voxelization, batch_size, max_points, max_voxels)


def _harden(
    points: Tensor, voxelization: Voxelization, batch_size: int, max_points: int, max_voxels: int
) -> HardVoxelization:
    coords, rows = voxelization.coords, voxelization.point_to_voxel.numpy()
    slots, filled = kernels.assign_slots(rows, coords.numpy(), batch_size, max_points, max_voxels)
    num_points = torch.from_numpy(filled)
    kept = num_points > 0
    features = points.detach()
    wide = (features if features.dtype == torch.float64 else features.float()).contiguous()
    voxels = wide.new_zeros(int(kept.sum()), max_points, points.shape[1])
    ranges = threads.even(len(points), wide.numel())
    new_rows = (kept.cumsum(0) - 1).numpy()
    threads.run(kernels.fill_slots, ranges, wide.numpy(), rows, slots, new_rows, voxels.numpy())
    return HardVoxelization(coords[kept], voxels.to(points.dtype), num_points[kept])


def _harden_reference(
    points: Tensor, voxelization: Voxelization, batch_size: int, max_points: int, max_voxels: int
) -> HardVoxelization:
    coords = voxelization.coords
    rows = (voxelization.point_to_voxel >= 0).nonzero()[:, 0]
    voxel = voxelization.point_to_voxel[rows]
    members = Segments.from_index(voxel, len(coords))
    first = rows[members.order[members.offsets[:-1]]]
    kept = _rank_in_sample(coords[:, 0].long(), first, batch_size) < max_voxels
    new_row = kept.cumsum(0) - 1

    slot = members.rank()
    use = kept[voxel] & (slot < max_points)
    voxels = points.new_zeros(int(kept.sum()), max_points, points.shape[1])
    voxels[new_row[voxel[use]], slot[use]] = points.detach()[rows[use]]
    return HardVoxelization(coords[kept], voxels, members.counts[kept].clamp(max=max_points))


def _rank_in_sample(sample: Tensor, first: Tensor, batch_size: int) -> Tensor:
    """Return each voxel's place ``[V]`` among those of its sample by the row of its first point."""
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = Segments.from_index(sample[order], batch_size).rank()
    return rank


def _check_caps(max_points: int, max_voxels: int) -> None:
    check_count("max_points", max_points, 1)
    check_count("max_voxels", max_voxels, 1)


def _check(
    points: Tensor, batch_index: Tensor, point_range: Sequence[float], voxel_size: Sequence[float], batch_size: int
) -> tuple[int, int, int]:
    """Check the arguments of voxelization and return the shape ``(z, y, x)``."""
    shape = grid_shape(point_range, voxel_size)
    num_cells(shape, batch_size)
    check_columns("points", points, 3)
    check_tensor("batch_index", batch_index, (len(points),), (torch.int64,))
    check_same_device(points=points, batch_index=batch_index)
    check_index("batch_index", batch_index, batch_size)
    check_finite("points[:, :3]", points[:, :3])
    return shape
