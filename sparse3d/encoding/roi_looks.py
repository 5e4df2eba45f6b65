"""What queries of 2D boxes look at, each only at what may show its object, as tables of indices.

    regions    a query sees the cells of its own region and of the related ones (MV2D of a single frame, "S")
    cells      a query sees the map's cells that its own region or a related one touches (of two frames, "T")

Source: MV2D (Wang et al., ICCV 2023), section 3.4; the two forms after its published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rois import RoIs


@dataclass(frozen=True)
class RegionLooks:
    """The regions that each of Q queries sees.

    Args:
        regions: ``[B, Q, K]`` int64, its own one first; any where there are less than K.
        shown: ``[B, Q, K]`` bool, whether there is one.
    """

    regions: Tensor
    shown: Tensor

    @classmethod
    def find(
        cls,
        related: Tensor,  # [B, Q, Q]
    ) -> RegionLooks:
        """Return the related regions of each one."""
        own = torch.eye(related.shape[1], dtype=torch.int64, device=related.device)
        count = int(related.sum(dim=2).max())
        regions = (related + own).argsort(dim=2, descending=True, stable=True)[..., :count]
        return cls(regions, related.gather(2, regions))


@dataclass(frozen=True)
class CellLooks:
    """The cells that queries see, image after image, row by row.

    Args:
        cells: ``[B, L]`` int64, numbered through all V images of a sample; any where there are less than L.
        shown: ``[B, Q, L]`` bool, whether a query sees them; every query sees one at least.
    """

    cells: Tensor
    shown: Tensor

    @classmethod
    def find(
        cls,
        rois: RoIs,
        related: Tensor,  # [B, Q, Q]
        shape: tuple[int, int, int],
        stride: int,
        margin: int,
    ) -> CellLooks:
        """Return the cells that a region touches, and which of them each query sees.

        Args:
            rois: Q regions of each sample.
            related: which regions may show the object of which.
            shape: ``(V, h, w)`` of the map.
            stride: pixels of the image in a cell.
            margin: cells by which each cell reaches beyond its borders.
        """
        touched = touched_cells(rois, shape[0], shape[1:], stride, margin).flatten(2)  # [B, Q, V h w]
        places = touched.any(dim=1)
        count = max(int(places.sum(dim=1).max()), 1)
        cells = places.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        own = touched.gather(2, cells[:, None].expand(-1, touched.shape[1], -1))
        shown = (related.float() @ own.float()) > 0
        shown[..., 0] |= ~shown.any(dim=2)  # an empty slot, whose answer does not count
        return cls(cells, shown)


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
