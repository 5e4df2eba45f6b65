"""How much memory a call needs at its peak; only Linux tells and resets a process's peak."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ops_suites.timing import Function


def peak_memory(make: Callable[..., tuple[Function, Function]], *arguments: Any) -> float:
    """Return by how many MiB a fresh process grows at most in a call, once everything is compiled and loaded.

    Args:
        make: called in that process; returns a small call that compiles and loads, and the one to measure.
        arguments: of ``make``.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_measure, make, arguments).result()


def _measure(make: Callable[..., tuple[Function, Function]], arguments: tuple[Any, ...]) -> float:
    warm, run = make(*arguments)
    warm()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    """Return a field of this process's memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
