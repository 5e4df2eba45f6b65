"""Segments as tables of rows, so that a maximum over segments takes nothing but gathers and maxima over an axis.

Inference engines have no reduction over ragged segments. A tree of fixed fan-in does the same: level 1 takes the
maximum of every FAN rows of a segment, level 2 of every FAN results, and the last level of all that are left, where
repeats of the last one fill a row:

    n rows -> ceil(n / FAN) -> ceil(ceil(n / FAN) / FAN) -> 1

A maximum is exact, so the result is that of ``segment_max`` in every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .segment import Segments

FAN = 8
DEPTH = 4


@dataclass(frozen=True)
class SegmentTree:
    """Rows grouped by segment, as ``segment_max`` and ``segment_gather`` take them inside an exported graph.

    Args:
        index: ``[P]`` integer, segment of each row.
        levels: tables ``[R, FAN]``, the last one ``[S, K]``, of rows of the level before; the first one's are the
            rows of the values.
    """

    index: Tensor
    levels: tuple[Tensor, ...]

    @classmethod
    def from_segments(cls, segments: Segments) -> SegmentTree:
        """Build the tables.

        Raises:
            ValueError: if a segment is empty: it has no maximum.
        """
        if not bool((segments.counts > 0).all()):
            raise ValueError("segments: expected at least one row in each, found an empty one")
        order, offsets, levels = segments.order, segments.offsets, []
        for _ in range(DEPTH - 1):
            table, offsets = _chunk(order, offsets, FAN)
            order = torch.arange(len(table), device=order.device)
            levels.append(table)
        widest = int(offsets.diff().max()) if len(offsets) > 1 else 1
        levels.append(_chunk(order, offsets, widest)[0])
        return cls(segments.index, tuple(levels))

    def gather(self, rows: Tensor) -> Tensor:
        """Give each of the P rows its segment's row, ``[S, C]`` -> ``[P, C]``."""
        return rows.index_select(0, self.index)

    def maximum(self, rows: Tensor) -> Tensor:
        """Return the maximum of each segment, ``[P, C]`` -> ``[S, C]``."""
        for table in self.levels:
            rows = rows.index_select(0, table.flatten()).unflatten(0, table.shape).amax(dim=1)
        return rows


def _chunk(order: Tensor, offsets: Tensor, fan: int) -> tuple[Tensor, Tensor]:
    """Cut the rows of each segment into chunks ``[R, fan]``, the last row repeated; return them and their offsets."""
    counts = offsets.diff()
    chunks = -(-counts // fan)
    starts = F.pad(chunks.cumsum(0), (1, 0))
    segment = torch.repeat_interleave(chunks)
    number = torch.arange(len(segment), device=order.device) - starts[segment]
    place = number[:, None] * fan + torch.arange(fan, device=order.device)
    place = torch.minimum(place, counts[segment, None] - 1)
    return order[offsets[segment, None] + place], starts
