"""What goes into a graph and comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Named = dict[str, Tensor]
Graph = Callable[[Named], Named]
Shape = tuple[int | str, ...]  # a string names a dimension that differs from scan to scan


@dataclass(frozen=True)
class Feed:
    """The inputs of one graph.

    Args:
        named: the graph's inputs.
        state: what the inputs of the next graph are made of besides its outputs; None where there is no next one.
    """

    named: Named
    state: Any = None
