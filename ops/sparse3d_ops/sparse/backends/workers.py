"""Share the items of a computation among threads, each of which calls torch on itself alone.

A product that one thread computes has the same bits whatever the number of threads is; one that torch splits may not
have. So the items, not the products, are shared, and which thread takes an item changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..._numba.threads import MIN_WORK, pool

Worker = Callable[[int], None]


def share(count: int, work: int, make_worker: Callable[[], Worker]) -> None:
    """Call workers on the items 0 to ``count - 1``, each item once.

    Args:
        count: number of items.
        work: elementary steps of all items; a little is not worth a second thread.
        make_worker: makes what a thread calls on its items, with buffers of its own. Workers run in inference mode and
            must not touch tensors that require gradients.
    """
    threads = min(torch.get_num_threads(), count, 1 + work // MIN_WORK)
    items = iter(range(count))

    def run() -> None:
        with one_thread(), torch.inference_mode():
            worker = make_worker()
            for item in items:
                worker(item)

    futures = [pool().submit(run) for _ in range(threads - 1)]
    try:
        run()
    finally:
        for future in futures:
            future.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use the calling thread alone within a ``with`` block; other threads keep what they have."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
