"""The sparse cross attention's keys: what each query looks at (`encoding/roi_looks.py`), gathered.

Source: MV2D (Wang et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.encoding.roi_looks import CellLooks, RegionLooks


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
    regions: Tensor,  # [B, Q, 2 C, P, P]
    looks: RegionLooks,
) -> Memory:
    """Return a group for each query: the cells of what it sees of regions, features and then positions in channels."""
    seen = gather_rows(regions.flatten(3).mT, looks.regions)  # [B, Q, K, P P, 2 C]
    keys, positions = seen.flatten(2, 3).flatten(0, 1).chunk(2, dim=2)
    hidden = ~looks.shown.repeat_interleave(regions.shape[3] * regions.shape[4], dim=2)
    return Memory(keys, positions, hidden.flatten(0, 1)[:, None])


def cell_memory(
    maps: Tensor,  # [B, V, 2 C, h, w]
    looks: CellLooks,
) -> Memory:
    """Return a group for each sample: the cells that queries see of a map, features and then positions in channels."""
    keys, positions = gather_rows(maps.movedim(2, -1).flatten(1, 3), looks.cells).chunk(2, dim=2)
    return Memory(keys, positions, ~looks.shown)


def gather_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return ``values`` ``[B, N, ...]`` at ``rows`` ``[B, ...]``, sample by sample."""
    first = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (rows.ndim - 1)) * values.shape[1]
    return values.flatten(0, 1)[first + rows]
