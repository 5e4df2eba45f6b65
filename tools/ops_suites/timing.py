"""Cases of a benchmark, and how they are timed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

LONG = 2.0  # seconds; a call that takes longer is not repeated
BUDGET, MAX_CALLS = 1.0, 30  # seconds and calls spent on one median

Function = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One operation at one size: our function, and others that do the same."""

    name: str
    ours: Function
    others: dict[str, Function] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function of a case; ``ratio`` is its time over ours, None for ours."""

    suite: str
    case: str
    function: str
    milliseconds: float
    ratio: float | None


def run_case(suite: str, case: Case) -> Iterator[Timing]:
    """Time the functions of a case, ours first.

    They take turns, so that a change of the machine's load meets them all. A first call compiles and counts only if it
    is long.
    """
    functions = {"sparse3d": case.ours, **case.others}
    case.ours()
    first = {name: seconds(function) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [value] if value > LONG else [] for name, value in first.items()}
    for turn in range(MAX_CALLS):
        for name, function in functions.items():
            if turn < calls_within_budget(first[name]):
                times[name].append(seconds(function))
    ours = statistics.median(times["sparse3d"])
    for name, values in times.items():
        value = statistics.median(values)
        yield Timing(suite, case.name, name, value * 1e3, None if name == "sparse3d" else value / ours)


def calls_within_budget(first: float) -> int:
    """Return how often a function is called after its first call, which took so many seconds."""
    return 0 if first > LONG else max(3, min(MAX_CALLS, math.ceil(BUDGET / max(first, 1e-6))))


def seconds(function: Function) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
