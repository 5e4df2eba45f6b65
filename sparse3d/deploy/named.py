"""What goes into a graph and comes out of it, and how several are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sparse3d.structures import Grid

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


class Preparation(Protocol):
    """How a scan becomes the inputs of graphs: what the runtime does before them and between them."""

    @property
    def grid(self) -> Grid:
        """The grid of the outputs."""

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""

    def __call__(self, scan: Any) -> Feed:
        """Return the first graph's inputs for one scan."""

    def go_on(self, graph: int, feed: Feed, outputs: Named) -> Feed:
        """Return the inputs of the graph after a given one, from that one's inputs and outputs."""

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input of a graph."""

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of outputs of a graph that another one follows, where a dimension is open."""

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""


class OneGraph:
    """What is the same in all preparations of a single graph: none follows."""

    num_graphs = 1

    def go_on(self, graph: int, feed: Feed, outputs: Named) -> Feed:
        """Raise ``ValueError``: there is no graph after the only one."""
        raise ValueError(f"the model has one graph, there is none after graph {graph}")

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows; none does."""
        return {}


def run_graphs(prepare: Preparation, graphs: Sequence[Graph], feed: Feed) -> Iterator[tuple[Named, Named]]:
    """Run the graphs of a model one after the other on the first one's inputs, and yield inputs and outputs of each."""
    for number, graph in enumerate(graphs):
        outputs = graph(feed.named)
        yield feed.named, outputs
        if number + 1 < len(graphs):
            feed = prepare.go_on(number, feed, outputs)
