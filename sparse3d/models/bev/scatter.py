"""Sparse to dense: voxels of one layer, or of a few that are stacked -> a bird's-eye map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparse3d_ops import bev_cells
from sparse3d_ops.sparse import SparseTensor


def scatter_to_bev(
    features: Tensor,  # [V, C]
    coords: Tensor,  # [V, 4]
    batch_size: int,
    shape: Sequence[int],
) -> Tensor:  # [B, C, Y, X]
    """Lay voxel features out on a dense map, zeros where there is no voxel.

    Args:
        features: ``[V, C]`` floating point.
        coords: ``[V, 4]`` integer ``(batch, z, y, x)``, unique, with z = 0.
        batch_size: number of samples; those without voxels give an empty map.
        shape: cells ``(y, x)`` of the map.

    Returns:
        ``[B, C, Y, X]`` in channels-last memory, which 2D convolutions on a CPU are several times faster in.

    Raises:
        ValueError: if rows do not match, or a voxel lies outside the map or above the first layer.
    """
    height, width = shape
    if coords.ndim != 2 or coords.shape[1] != 4 or len(coords) != len(features):
        raise ValueError(f"coords: expected [{len(features)}, 4], got {list(coords.shape)}")
    limits = coords.new_tensor([batch_size, 1, height, width])
    if bool(((coords < 0) | (coords >= limits)).any()):
        highest = coords.amax(dim=0).tolist()
        raise ValueError(f"coords: (batch, z, y, x) must lie in [0, {limits.tolist()}), got up to {highest}")
    return lay_out(features, bev_cells(coords, shape), batch_size, shape)


def lay_out(
    features: Tensor,  # [V, C]
    cells: Tensor,  # [V]
    batch_size: int,
    shape: Sequence[int],
) -> Tensor:  # [B, C, Y, X]
    """Do what ``scatter_to_bev`` does for rows whose ``bev_cells`` are known and unique, unchecked."""
    height, width = shape
    flat = features.new_zeros(batch_size * height * width, features.shape[1])
    return flat.index_copy(0, cells, features).view(batch_size, height, width, -1).permute(0, 3, 1, 2)


def stack_layers(x: SparseTensor) -> Tensor:
    """Lay a sparse tensor ``(Z, Y, X)`` of C channels out as a map ``[B, C * Z, Y, X]``, in channels-last memory.

    Channel c of layer z becomes channel ``c * Z + z``, as where a dense ``[B, C, Z, Y, X]`` is flattened.
    """
    layers, height, width = x.spatial_shape
    cells = bev_cells(x.indices, (height, width)) * layers + x.indices[:, 1]
    return stack_rows(x.features, cells, x.batch_size, (layers, height, width))


def stack_rows(
    features: Tensor,  # [V, C]
    cells: Tensor,  # [V]
    batch_size: int,
    shape: Sequence[int],
) -> Tensor:  # [B, C * Z, Y, X]
    """Do what ``stack_layers`` does for rows whose ``bev_cells * Z + z`` is known, in ``shape`` ``(Z, Y, X)``."""
    layers, height, width = shape
    flat = features.new_zeros(batch_size * height * width * layers, features.shape[1])
    filled = flat.index_copy(0, cells, features).view(batch_size, height, width, layers, -1)
    return filled.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
