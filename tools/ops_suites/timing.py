"""Cases of a benchmark, and how they are measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

LONG = 2.0  # seconds; a call that takes longer is not repeated
BUDGET, MAX_CALLS = 1.0, 30  # seconds and calls spent on one median

Function = Callable[[], Any]


@dataclass(frozen=True)
class Alone:
    """A function on one thread of torch."""

    function: Function

    def __call__(self) -> Any:
        """Call it, and give torch its threads back."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.function()
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Case:
    """One operation at one size: our function, and others that do the same.

    Args:
        name: the operation, and its size where there are several.
        ours: our function.
        others: those of others by name, the peer to compare with first; and ours in other settings, whose names begin
            with the name of ours.
        step: ``"forward"`` or the like; "" where an operation has one only.
        channels: width of a layer, if it has one.
        backend: name of ours.
        unit: ``"ms"``: functions are timed; ``"MiB"``: they return their own figure.
    """

    name: str
    ours: Function
    others: dict[str, Function] = field(default_factory=dict)
    step: str = ""
    channels: int | None = None
    backend: str = "sparse3d"
    unit: str = "ms"

    @property
    def peer(self) -> str | None:
        """Name of what ours is compared with, None for nothing."""
        return next((name for name in self.others if not name.startswith(self.backend)), None)


@dataclass(frozen=True)
class Row:
    """What one function of a case was seen to take; ``ratio`` is the peer's figure over this one's."""

    suite: str
    case: Case
    backend: str
    threads: int
    value: float
    ratio: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the row of the file that ``--json`` names."""
        return {
            "suite": self.suite,
            "case": self.case.name,
            "pass": self.case.step,
            "channels": self.case.channels,
            "threads": self.threads,
            "backend": self.backend.split(",")[0],
            self.case.unit: self.value,
            "ratio": self.ratio,
            "peer": self.case.peer,
        }


def run_case(suite: str, case: Case) -> list[Row]:
    """Measure the functions of a case, ours first."""
    functions = {case.backend: case.ours, **case.others}
    values = times(functions) if case.unit == "ms" else {name: function() for name, function in functions.items()}
    peer = None if case.peer is None else values[case.peer]
    return [
        Row(suite, case, name, threads_of(functions[name]), value, None if peer is None else peer / value)
        for name, value in values.items()
    ]


def threads_of(function: Function) -> int:
    """Return how many threads of torch a function has."""
    return 1 if isinstance(function, Alone) else torch.get_num_threads()


def times(functions: dict[str, Function]) -> dict[str, float]:
    """Return the median time of each function in milliseconds.

    They take turns, so that a change of the machine's load meets them all. A first call compiles and counts only if it
    is long.
    """
    next(iter(functions.values()))()
    first = {name: seconds(function) for name, function in functions.items()}
    seen: dict[str, list[float]] = {name: [value] if value > LONG else [] for name, value in first.items()}
    for turn in range(MAX_CALLS):
        for name, function in functions.items():
            if turn < calls_within_budget(first[name]):
                seen[name].append(seconds(function))
    return {name: statistics.median(values) * 1e3 for name, values in seen.items()}


def calls_within_budget(first: float) -> int:
    """Return how often a function is called after its first call, which took so many seconds."""
    return 0 if first > LONG else max(3, min(MAX_CALLS, math.ceil(BUDGET / max(first, 1e-6))))


def seconds(function: Function) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def all_rows(suite: str, cases: Iterator[Case]) -> Iterator[Row]:
    """Measure case after case."""
    for case in cases:
        yield from run_case(suite, case)
