"""A submanifold kernel map of which one half is kept.

Where site a meets site b under a tap, b meets a under the opposite one. So the pairs of a tap past the centre are those
of its opposite, with their sides exchanged, and a forward pass needs no list of them.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..kernel_map import KernelMap


class MirroredMap(KernelMap):
    """A `KernelMap` of its taps up to the centre; all pairs are listed when something asks for them.

    Args:
        half: the map of those taps; within the centre, each site is paired with itself.
    """

    def __init__(self, half: KernelMap) -> None:
        for name in ("num_inputs", "num_outputs", "geometry"):
            object.__setattr__(self, name, getattr(half, name))
        for name, value in (("half", half), ("is_submanifold", True), ("_forms", {})):
            object.__setattr__(self, name, value)

    half: KernelMap

    @cached_property
    def inputs(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        return self._both(self.half.inputs, self.half.outputs)

    @cached_property
    def outputs(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        return self._both(self.half.outputs, self.half.inputs)

    @cached_property
    def offsets(self) -> Tensor:  # type: ignore[override]
        """See `KernelMap`."""
        pairs = self.half.offsets.diff()
        return torch.cat([self.half.offsets, self.half.offsets[-1] + pairs[:-1].flip(0).cumsum(0)])

    @property
    def num_taps(self) -> int:
        """See `KernelMap`."""
        return 2 * self.half.num_taps - 1

    @property
    def num_pairs(self) -> int:
        """See `KernelMap`."""
        return 2 * self.half.num_pairs - self.num_outputs

    def transpose(self) -> KernelMap:
        """See `KernelMap`."""
        return MirroredMap(self.half.transpose())

    def _both(self, listed: Tensor, exchanged: Tensor) -> Tensor:
        before_centre = self.half.tap_ranges()[:-1]
        return torch.cat([listed, *(exchanged[start:stop] for start, stop in reversed(before_centre))])
