"""In which order a GPU takes the output rows of a kernel map, and which taps each tile of rows needs.

A tile multiplies under every tap that any of its rows has, so rows with like taps should be neighbours. They are sorted
by their set of taps, written as a binary number with the rarest taps (far from the centre) in the highest bits and read
as a Gray code: neighbours in that order differ in few taps. The order of rows changes nothing but speed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from ..geometry import Geometry

MAX_ROWS = 128  # of a tile; lanes are padded to a multiple
MAX_SORTED_TAPS = 62  # bits of a positive int64; maps with more taps keep the order of their rows


@dataclass(frozen=True)
class Schedule:
    """Lanes of the rows of a kernel map.

    Args:
        order: ``[L]`` int32 output row of each lane, -1 in lanes that fill the last tile.
        table: ``[K, L]`` int32 input row under each tap of each lane, -1 for none.
    """

    order: Tensor
    table: Tensor
    _tiles: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, table: Tensor, keys: Tensor | None) -> Schedule:
        """Return the schedule of a neighbour table ``[K, M]``; ``keys`` ``[M]``, if given, order its rows."""
        rows = table.shape[1]
        filling = (0, -rows % MAX_ROWS)
        order = torch.arange(rows, device=table.device) if keys is None else torch.sort(keys, stable=True).indices
        lanes = torch.nn.functional.pad(table[:, order], filling, value=-1)
        return cls(torch.nn.functional.pad(order, filling, value=-1).int(), lanes)

    def tiles(self, rows: int) -> Tensor:
        """Return ``[L / rows, K + 1]`` int32: the taps of each tile of lanes, ascending, and last their number."""
        if rows not in self._tiles:
            taps = len(self.table)
            used = (self.table.view(taps, -1, rows) >= 0).any(dim=2).T
            ranks = torch.arange(taps, device=used.device, dtype=torch.int32)
            listed = ranks.where(used, taps).sort(dim=1).values.clamp(max=taps - 1)
            self._tiles[rows] = torch.cat([listed, used.sum(dim=1, keepdim=True, dtype=torch.int32)], dim=1)
        return self._tiles[rows]


@lru_cache(maxsize=64)
def tap_bits(geometry: Geometry) -> tuple[int, ...]:
    """Return the bit of each tap: the nearer to the kernel's centre, the lower (by |dz| + |dy| + |dx|, then |dz|)."""
    doubled = (2 * geometry.taps() - torch.tensor(geometry.kernel_size) + 1).abs()  # of the distance
    distances = list(zip(doubled.sum(dim=1).tolist(), doubled[:, 0].tolist(), strict=True))
    order = sorted(range(geometry.volume), key=lambda tap: distances[tap])
    return tuple(order.index(tap) for tap in range(geometry.volume))
