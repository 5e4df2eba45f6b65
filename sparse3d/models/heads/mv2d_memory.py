"""What queries of 2D boxes look at, each only at what may show its object: the sparse cross attention's keys.

regions    a query sees the P x P cells of its own region and of the related ones (single frame, "S")
cells      a query sees the map's cells that its own region or a related one touches (two frames, "T")

Source: MV2D (Wang et al., ICCV 2023), section 3.4; the two forms after its published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .mv2d_rois import RoIs


@dataclass(frozen=True)
class Memory:
    """Keys of M groups of queries.

    Args:
        keys: ``[M, L, C]``.
        positions: ``[M, L, C]``, their embedded positions.
        hidden: ``[M, Q', L]`` bool, True where a query must not see a key; every query sees one at least.
    """

    keys: Tensor
    positions: Tensor
    hidden: Tensor

    def with_all(self, count: int) -> Memory:
        """Return the memory with ``count`` more queries in front, which see whatever another one of the group sees."""
        all_hidden = self.hidden.all(dim=1, keepdim=True).expand(-1, count, -1)
        return Memory(self.keys, self.positions, torch.cat([all_hidden, self.hidden], dim=1))


def region_memory(
    cells: Tensor,  # [B, Q, 2 C, P, P]
    related: Tensor,  # [B, Q, Q]
) -> Memory:
    """Return a group for each query: the cells of the related regions, features and then positions in the channels."""
    own = torch.eye(related.shape[1], dtype=torch.int64, device=related.device)
    count = int(related.sum(dim=2).max())
    order = (related + own).argsort(dim=2, descending=True, stable=True)[..., :count]  # [B, Q, K], the own one first
    shown = related.gather(2, order)
    rows = torch.arange(len(cells), device=cells.device)[:, None, None]
    both = cells.flatten(3).mT[rows, order].flatten(2, 3).flatten(0, 1)  # [B Q, K P P, 2 C]
    keys, positions = both.chunk(2, dim=2)
    hidden = ~shown.repeat_interleave(cells.shape[3] * cells.shape[4], dim=2)
    return Memory(keys, positions, hidden.flatten(0, 1)[:, None])


def cell_memory(
    features: Tensor,  # [B, V, C, h, w]
    positions: Tensor,  # [B, V, C, h, w]
    rois: RoIs,
    related: Tensor,  # [B, Q, Q]
    stride: int,
    margin: int,
) -> Memory:
    """Return a group for each sample: all cells that a region touches, image after image, row by row.

    Args:
        features: the map.
        positions: its embedded positions.
        rois: Q regions of each sample.
        related: which regions may show the object of which.
        stride: pixels of the image in a cell.
        margin: cells by which each cell reaches beyond its borders.
    """
    touched = touched_cells(rois, features.shape[1], features.shape[3:], stride, margin).flatten(2)  # [B, Q, V h w]
    places = touched.any(dim=1)
    count = max(int(places.sum(dim=1).max()), 1)
    order = places.int().argsort(dim=1, descending=True, stable=True)[:, :count]  # [B, L]
    seen = (related.float() @ touched.gather(2, order[:, None].expand(-1, touched.shape[1], -1)).float()) > 0
    seen[..., 0] |= ~seen.any(dim=2)  # an empty slot, whose answer does not count
    rows = torch.arange(len(order), device=order.device)[:, None]
    keys, embedded = (each.movedim(2, -1).flatten(1, 3)[rows, order] for each in (features, positions))
    return Memory(keys, embedded, ~seen)


def touched_cells(
    rois: RoIs, num_views: int, shape: tuple[int, int], stride: int, margin: int
) -> Tensor:  # [B, Q, V, h, w]
    """Return which cells of its image each region touches, borders included."""
    rows, columns = ((torch.arange(count, device=rois.boxes.device) + 0.5) * stride - 0.5 for count in shape)
    reach = stride / 2 + stride * margin
    x1, y1, x2, y2 = rois.boxes[..., None].unbind(dim=2)
    along_y = (rows + reach >= y1) & (rows - reach <= y2)
    along_x = (columns + reach >= x1) & (columns - reach <= x2)
    number = torch.arange(num_views, device=rois.views.device)
    in_view = (rois.views[..., None] == number) & rois.valid[..., None]
    return in_view[..., None, None] & (along_y[..., :, None] & along_x[..., None, :])[:, :, None]
