"""Queries from heat maps, and the cells that each of them looks at.

    1. a cell is a peak of its class where it holds the maximum of its k x k neighbourhood; the outermost cells have no
       whole neighbourhood and are never peaks; classes of small, crowded objects need no peak
    2. the Q hottest of all peaks, over classes and cells at once
    3. a query looks at the (2 r + 1) x (2 r + 1) cells around its own

A map `[B, C, U, V]` is flattened to cells `u * V + v`. Published windows are drawn on flattened maps: beyond the end of
a row they go on in the next one, and on a map that is narrower than a window they meet some cells twice. A cell that is
met n times has n equal keys, which is to add log n to its score: so attention needs no copies of keys.

Source: TransFusion (Bai et al., CVPR 2022), sections 3.2 and 3.3, as in DSVT's published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.decoding.transfusion import Queries


def find_peaks(
    heat: Tensor,  # [B, K, U, V]
    kernel_size: int,
    every_cell: Sequence[int] = (),
) -> Tensor:  # [B, K, U, V]
    """Return the heat at peaks, 0 elsewhere; see step 1.

    Args:
        heat: in ``[0, 1]``.
        kernel_size: odd side k of the neighbourhood; 1 makes every cell a peak.
        every_cell: classes of which every cell is a peak.
    """
    margin = kernel_size // 2
    highest = torch.zeros_like(heat)
    if min(heat.shape[2:]) >= kernel_size:
        highest = F.pad(F.max_pool2d(heat, kernel_size, stride=1), [margin] * 4)
    peak = heat == highest
    peak[:, list(every_cell)] = True
    return heat * peak


def select_queries(
    peaks: Tensor,  # [B, K, U, V]
    num_queries: int,
) -> Queries:
    """Return the hottest peaks of each sample in descending order; see step 2."""
    heat, place = peaks.flatten(1).topk(num_queries, dim=1)
    num_cells = peaks.shape[2] * peaks.shape[3]
    return Queries(cells=place % num_cells, labels=place // num_cells, heat=heat)


@dataclass(frozen=True)
class Windows:
    """The cells that queries look at.

    Args:
        cells: ``[B, Q, (2 r + 1)²]`` int64; those off the map are moved onto it.
        visible: ``[B, Q, (2 r + 1)²]`` bool, on the map.
    """

    cells: Tensor
    visible: Tensor

    @classmethod
    def around(
        cls,
        cells: Tensor,  # [B, Q]
        shape: tuple[int, int],
        radius: int,
        wrap: bool,
    ) -> Windows:
        """Return the windows of ``radius`` r around cells of a map of ``shape`` ``(U, V)``.

        Args:
            cells: centres of the windows.
            shape: cells of the map.
            radius: reach in cells.
            wrap: go on in the next row beyond the end of one, as published, instead of ending there.
        """
        height, width = shape
        reach = torch.arange(-radius, radius + 1, device=cells.device)
        du, dv = (offset.flatten() for offset in torch.meshgrid(reach, reach, indexing="ij"))
        if wrap:
            flat = cells[..., None] + du * width + dv
            inside = flat.clamp(0, height * width - 1)
            return cls(inside, inside == flat)
        u, v = cells[..., None] // width + du, cells[..., None] % width + dv
        inside_u, inside_v = u.clamp(0, height - 1), v.clamp(0, width - 1)
        return cls(inside_u * width + inside_v, (inside_u == u) & (inside_v == v))

    def occurrences(self, num_cells: int) -> Tensor:
        """Return ``[num_cells]`` float32: how often each cell stands in any window, those that were moved included."""
        return self.cells.flatten().bincount(minlength=num_cells).float()


def window_log_counts(
    cells: Tensor,  # [B, Q]
    shape: tuple[int, int],
    radius: int,
    wrap: bool,
) -> Tensor:  # [B, Q, U V]
    """Return the log of how often a query sees each cell of the map in its window (float32), -inf for never.

    Key (u, v) lies du rows and dv columns from the query. It is met once for each number k of rows that the window went
    on by beyond the end of one, where |du - k| <= r and |dv + k V| <= r: a product of a matrix of rows and one of
    columns. Arguments as for ``Windows.around``.
    """
    height, width = shape
    most = (radius + width - 1) // width if wrap else 0
    turns = torch.arange(-most, most + 1, device=cells.device)
    du = torch.arange(height, device=cells.device) - (cells // width)[..., None]
    dv = torch.arange(width, device=cells.device) - (cells % width)[..., None]
    rows = (du[..., None] - turns).abs() <= radius
    columns = (dv[..., None, :] + turns[:, None] * width).abs() <= radius
    return (rows.float() @ columns.float()).flatten(2).log()
