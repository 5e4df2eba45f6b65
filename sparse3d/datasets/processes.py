"""Jobs in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_in_processes(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with ``work(job)`` when it is done; jobs that have not begun are dropped if one fails.

    Args:
        work: a function that can be pickled.
        jobs: its arguments.
        workers: processes; one is this one.
        initializer: called in each new process.
    """
    if workers <= 1:
        for job in jobs:
            yield job, work(job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=initializer) as pool:
        pending = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
