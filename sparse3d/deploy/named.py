"""What goes into a graph and comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparse3d_ops.sparse import Sites

Named = dict[str, Tensor]
Graph = Callable[[Named], Named]
Shape = tuple[int | str, ...]  # a string names a dimension that differs from scan to scan


@dataclass(frozen=True)
class Feed:
    """The inputs of one graph.

    Args:
        named: the graph's inputs.
        sites: the active voxels at its end, from which the next graph's grow; None where there is no next one.
    """

    named: Named
    sites: Sites | None = None
