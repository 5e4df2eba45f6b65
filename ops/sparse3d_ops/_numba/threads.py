"""Run a kernel on ranges of rows, on as many threads as torch uses.

Every row is computed by one thread, in one order, so the number of threads never changes a result. A data-loader
worker has one torch thread, so kernels run in the calling thread there. The pool is made anew after a fork, because
threads do not survive one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

MIN_WORK = 1 << 16  # elementary steps that are worth handing to a second thread (about 0.1 ms)


def run(kernel: Callable[..., Any], bounds: list[int], *args: Any) -> None:
    """Call ``kernel(start, stop, *args)`` for each pair of neighbouring ``bounds``, the last one in this thread."""
    ranges = list(pairwise(bounds))
    futures = [pool().submit(kernel, start, stop, *args) for start, stop in ranges[:-1]]
    kernel(*ranges[-1], *args)
    for future in futures:
        future.result()


def even(rows: int, work: int) -> list[int]:
    """Return bounds that cut ``rows`` rows of ``work`` steps in total into equal ranges."""
    parts = _parts(rows, work)
    return [rows * part // parts for part in range(parts + 1)]


def by_load(offsets: np.ndarray, work: int) -> list[int]:
    """Return bounds that cut the segments ``[S + 1]`` into ranges of about equal numbers of members."""
    return cut(offsets, _parts(len(offsets) - 1, work))


def cut(offsets: np.ndarray, parts: int) -> list[int]:
    """Return bounds that cut the segments ``[S + 1]`` into so many ranges of about equal numbers of members."""
    marks = [offsets[-1] * part // parts for part in range(1, parts)]
    return [0, *np.searchsorted(offsets[:-1], marks).tolist(), len(offsets) - 1]


def _parts(rows: int, work: int) -> int:
    return max(1, min(torch.get_num_threads(), rows, work // MIN_WORK))


@lru_cache(maxsize=1)
def pool() -> ThreadPoolExecutor:
    """Return the threads that kernels share; they start at the first use."""
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="sparse3d_ops")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)
