"""Launch the kernels that find kernel maps on a GPU (``_triton/maps.py``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._triton import maps as kernels
from ..._triton.launch import launch, parts
from ..geometry import Geometry, Triple
from ..kernel_map import KernelMap
from .schedule import MAX_SORTED_TAPS, Schedule, tap_bits


def fits_bitmap(cells: int) -> bool:
    """Return whether a grid is small enough for ``reach``."""
    return cells <= kernels.MAX_WORDS * kernels.WORD_BITS


def reach(coords: Tensor, geometry: Geometry, shape: Triple, cells: int, to_coarse: bool) -> Tensor:
    """Return the ascending keys of the sites of a grid of ``shape`` and ``cells`` that a tap reaches from a site.

    Waits for the GPU once, for the number of sites.
    """
    words = torch.zeros(-(-cells // kernels.WORD_BITS), dtype=torch.int32, device=coords.device)
    grid = (parts(len(coords), kernels.BLOCK),)
    sites = (coords.contiguous(), len(coords), *shape, words)
    launch(kernels.reach, grid, *sites, **_rule(geometry), TO_COARSE=to_coarse, BLOCK=kernels.BLOCK)
    counts = torch.empty_like(words)
    grid = (parts(len(words), kernels.BLOCK),)
    launch(kernels.count_bits, grid, words, len(words), counts, BLOCK=kernels.BLOCK)
    ends = counts.cumsum(0)
    keys = ends.new_empty(int(ends[-1]) if len(ends) else 0)
    launch(kernels.list_keys, grid, words, ends - counts, len(words), keys, BLOCK=kernels.BLOCK)
    return keys


def find(fine_keys: Tensor, fine_shape: Triple, coarse: Tensor, geometry: Geometry) -> Tensor:
    """Return the fine row under each tap of each coarse site, ``[K, M]`` int32, -1 for none."""
    table = fine_keys.new_empty(geometry.volume, len(coarse), dtype=torch.int32)
    grid = (parts(len(coarse), kernels.BLOCK),)
    sites = (coarse.contiguous(), len(coarse), fine_keys, len(fine_keys), *fine_shape, table)
    launch(kernels.find, grid, *sites, **_rule(geometry), STEPS=len(fine_keys).bit_length(), BLOCK=kernels.BLOCK)
    return table


def schedule(kernel_map: KernelMap) -> Schedule:
    """Return the schedule of a map, which the map keeps."""
    return kernel_map.form("schedule", lambda: _schedule(kernel_map.table(), kernel_map.geometry))


def _schedule(table: Tensor, geometry: Geometry) -> Schedule:
    taps, rows = table.shape
    if taps > MAX_SORTED_TAPS:
        return Schedule.of(table, None)
    keys = torch.empty(rows, dtype=torch.int64, device=table.device)
    bits = torch.tensor(tap_bits(geometry), dtype=torch.int32, device=table.device)
    grid = (parts(rows, kernels.BLOCK),)
    launch(kernels.order_keys, grid, table, rows, bits, keys, TAPS=taps, BLOCK=kernels.BLOCK)
    return Schedule.of(table, keys)


def _rule(geometry: Geometry) -> dict[str, Any]:
    return {
        "SIZE": geometry.kernel_size,
        "STRIDE": geometry.stride,
        "PADDING": geometry.padding,
        "DILATION": geometry.dilation,
    }
