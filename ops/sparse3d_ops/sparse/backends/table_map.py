"""A kernel map that a GPU found as a neighbour table.

Its number of pairs is known to the GPU alone, and asking waits for it. So pairs are listed when something asks for them
(the weight's gradient and pooling do), and a forward pass of convolutions, with their transposes, never does.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..geometry import Geometry
from ..kernel_map import KernelMap, from_rows


class TableMap(KernelMap):
    """A `KernelMap` made of its table.

    Args:
        table: ``[K, num_outputs]`` int32 input row under each tap, -1 for none.
        num_inputs: input rows.
        geometry: as in `KernelMap`.
        is_submanifold: as in `KernelMap`.
    """

    def __init__(self, table: Tensor, num_inputs: int, geometry: Geometry, is_submanifold: bool) -> None:
        known = {
            "num_inputs": num_inputs,
            "num_outputs": table.shape[1],
            "geometry": geometry,
            "is_submanifold": is_submanifold,
            "_forms": {"table": table},
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)

    @cached_property
    def _listed(self) -> KernelMap:
        return from_rows(self.table(), self.num_inputs, self.geometry, self.is_submanifold)

    @property
    def inputs(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        return self._listed.inputs

    @property
    def outputs(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        return self._listed.outputs

    @property
    def offsets(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        return self._listed.offsets

    @property
    def num_taps(self) -> int:
        """See `KernelMap`."""
        return len(self.table())

    def transpose(self) -> KernelMap:
        """See `KernelMap`."""
        table = self.table()
        back = table.new_full((len(table), self.num_inputs + 1), -1)  # the last column takes what meets no input
        rows = torch.arange(self.num_outputs, dtype=torch.int32, device=table.device).expand_as(table)
        back.scatter_(1, table.where(table >= 0, self.num_inputs).long(), rows)
        return TableMap(back[:, :-1].contiguous(), self.num_outputs, self.geometry, self.is_submanifold)
