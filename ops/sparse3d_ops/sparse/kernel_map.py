"""Kernel maps: which input row meets which output row under which tap of the kernel.

A map lists pairs, tap after tap, and in ascending order of outputs within a tap; within a tap no row occurs twice.
Because rows are in key order on both sides, and a tap moves all sites by one rule that keeps their order, the inputs
ascend within a tap as well, so the transposed map is the same lists with their roles swapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from .geometry import Geometry

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Pairs of rows by tap.

    Args:
        inputs: ``[P]`` int32, input row of each pair.
        outputs: ``[P]`` int32, output row of each pair.
        offsets: ``[K + 1]`` int64 on the CPU; tap ``k`` owns the pairs ``offsets[k]:offsets[k + 1]``.
        num_inputs: input rows.
        num_outputs: output rows.
        geometry: kernel, of which ``inputs`` are the fine sites, or after ``transpose`` the coarse ones.
        is_submanifold: whether inputs and outputs are the same sites.
    """

    inputs: Tensor
    outputs: Tensor
    offsets: Tensor
    num_inputs: int
    num_outputs: int
    geometry: Geometry
    is_submanifold: bool = False
    _forms: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def num_taps(self) -> int:
        """Number of taps K."""
        return len(self.offsets) - 1

    @property
    def num_pairs(self) -> int:
        """Number of pairs P."""
        return len(self.inputs)

    def tap_ranges(self) -> list[tuple[int, int]]:
        """Return first and last + 1 pair of each tap."""
        return list(pairwise(self.offsets.tolist()))

    def transpose(self) -> KernelMap:
        """Return the map of the transposed convolution: inputs and outputs swapped, taps as they are."""
        return KernelMap(
            self.outputs,
            self.inputs,
            self.offsets,
            self.num_outputs,
            self.num_inputs,
            self.geometry,
            self.is_submanifold,
        )

    def table(self) -> Tensor:
        """Return the neighbour table ``[K, num_outputs]`` int32: the input row under each tap, -1 for none."""
        return self.form("table", self._make_table)

    def form(self, name: str, make: Callable[[], T]) -> T:
        """Return another form of this map, which a backend makes once and the map keeps."""
        if name not in self._forms:
            self._forms[name] = make()
        return self._forms[name]

    def _make_table(self) -> Tensor:
        table = self.inputs.new_full((self.num_taps, self.num_outputs), -1)
        taps = torch.repeat_interleave(self.offsets.diff()).to(self.inputs.device)
        table[taps, self.outputs.long()] = self.inputs
        return table


def from_rows(
    rows: Tensor,  # [K, M], fine row under each tap of each coarse row, -1 for none
    num_fine: int,
    geometry: Geometry,
    is_submanifold: bool,
) -> KernelMap:
    """Return the map that a dense table of fine rows describes."""
    taps, outputs = (rows >= 0).nonzero(as_tuple=True)
    offsets = torch.nn.functional.pad(torch.bincount(taps, minlength=len(rows)).cumsum(0), (1, 0)).cpu()
    inputs = rows[taps, outputs].int()
    return KernelMap(inputs, outputs.int(), offsets, num_fine, rows.shape[1], geometry, is_submanifold)
