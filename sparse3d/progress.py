"""Progress bars: one way to show them, for scripts (`track`) and for training and testing (`ProgressHook`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .registry import HOOKS

Item = TypeVar("Item")


def make_progress(*, counts: bool = True) -> Progress:
    """Return a bar with description, time spent and time left; ``counts`` adds "done/total"."""
    columns = [TextColumn("{task.description}"), BarColumn()]
    if counts:
        columns.append(MofNCompleteColumn())
    columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    return Progress(*columns)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` behind a progress bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with make_progress() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show a progress bar while training, validating and testing.

    Training by the clock (``TimedTrainLoop``) shows the share of the time budget that is used.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Start the training bar."""
        by_clock = hasattr(runner.train_loop, "max_seconds")
        self._start(runner, "training", 1.0 if by_clock else runner.max_iters, counts=not by_clock)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Advance the training bar and show the loss."""
        loss = "" if outputs is None or "loss" not in outputs else f"  loss {outputs['loss'].item():.3f}"
        done = getattr(runner.train_loop, "progress", runner.iter + 1)
        self._update(f"training  iteration {runner.iter + 1}{loss}", done)

    def after_train(self, runner: Runner) -> None:
        """Close the training bar."""
        self._stop()

    def before_test(self, runner: Runner) -> None:
        """Start the test bar."""
        self._start(runner, "testing", len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the test bar."""
        self._update("testing", batch_idx + 1)

    def after_test(self, runner: Runner) -> None:
        """Close the test bar."""
        self._stop()

    def _start(self, runner: Runner, description: str, total: float, *, counts: bool = True) -> None:
        if not is_main_process():
            return
        self.progress = make_progress(counts=counts)
        self.progress.start()
        self.task = self.progress.add_task(description, total=total)
        # rich puts a proxy in place of sys.stdout; log lines that go through it are printed above the bar.
        self.streams = [(handler, handler.setStream(sys.stdout)) for handler in _console_handlers(runner.logger)]

    def _update(self, description: str, completed: float) -> None:
        if self.progress is not None:
            self.progress.update(self.task, description=description, completed=completed)

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            for handler, stream in self.streams:
                if stream is not None:
                    handler.setStream(stream)
            self.progress = None


def _console_handlers(logger: logging.Logger) -> list[logging.StreamHandler]:
    return [
        handler
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
