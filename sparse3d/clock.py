"""Training by the clock: a loop that stops when its time is used, and a one-cycle schedule that follows it.

With `p` the used share of the time budget, the learning rate follows half a cosine from `peak / div` up to `peak`
while `p` runs over the warm-up, and half a cosine down to `peak / final_div` over the rest; beta1 runs the other way
(Smith & Topin, "Super-Convergence", 2018). A slow machine takes fewer steps of the same schedule and still finishes.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .engine.loops import IterBasedTrainLoop
from .registry import HOOKS, LOOPS

ELAPSED = "elapsed_seconds"  # runtime info of the MessageHub, so that a resumed run goes on with the time that is left


@LOOPS.register_module()
class TimedTrainLoop(IterBasedTrainLoop):
    """Train until a time budget or a number of iterations is used up, whichever comes first.

    Args:
        runner: the runner.
        dataloader: loader or its config.
        max_seconds: time budget for training in seconds; the first iteration (compilation, caches) is not counted.
        max_iters: upper bound on iterations.
        kwargs: arguments of ``IterBasedTrainLoop``.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, max_seconds: float, max_iters: int, **kwargs: Any
    ) -> None:
        super().__init__(runner, dataloader, max_iters=max_iters, **kwargs)
        if max_seconds <= 0:
            raise ValueError(f"TimedTrainLoop: max_seconds must be positive, got {max_seconds}")
        self.max_seconds = float(max_seconds)
        self._last_tick: float | None = None
        self._started = False

    @property
    def elapsed(self) -> float:
        """Seconds trained so far, earlier runs of a resumed training included."""
        hub = self.runner.message_hub
        return hub.get_info(ELAPSED) if ELAPSED in hub.runtime_info else 0.0

    @property
    def progress(self) -> float:
        """Used share of the budget, 0 to 1."""
        return min(1.0, max(self.elapsed / self.max_seconds, self._iter / self._max_iters))

    @property
    def max_iters(self) -> int:
        """Iterations that the budget will allow at the pace so far; exact once the last one has begun."""
        by_time = self.elapsed / self.max_seconds
        if by_time == 0 or self._iter >= self._max_iters - 1:
            return self._max_iters
        return min(self._max_iters, max(self._iter + 2, round(self._iter / by_time)))

    def run_iter(self, data_batch: Any) -> None:
        """Train one iteration; when the time is used, it is the last one, and hooks see it as such."""
        self._read_clock()
        if self.elapsed >= self.max_seconds:
            self._max_iters = self._iter + 1
        super().run_iter(data_batch)

    def _read_clock(self) -> None:
        now = time.monotonic()
        if self._last_tick is not None:
            self.runner.message_hub.update_info(ELAPSED, self._agree(self.elapsed + now - self._last_tick))
        # The first iteration's time is left out: it compiles kernels and fills caches.
        self._last_tick = now if self._started else None
        self._started = True

    def _agree(self, seconds: float) -> float:
        """Let all processes follow the first one's clock: they must stop at the same iteration."""
        if not self.runner.distributed:
            return seconds
        shared = torch.tensor([seconds], dtype=torch.float64)
        broadcast(shared)
        return shared.item()


@HOOKS.register_module()
class OneCycleByProgress(Hook):
    """Set learning rate and beta1 from the progress of a ``TimedTrainLoop`` before every iteration.

    Args:
        peak_lr: highest learning rate; parameter groups keep their ratio to the first group's.
        warmup: share of the run in which the rate rises.
        div: the run starts at ``peak_lr / div``.
        final_div: and ends at ``peak_lr / final_div``.
        betas: beta1 at the ends and at the peak.
    """

    def __init__(
        self,
        peak_lr: float,
        warmup: float = 0.3,
        div: float = 10.0,
        final_div: float = 1e3,
        betas: tuple[float, float] = (0.95, 0.85),
    ) -> None:
        if not 0 < warmup < 1:
            raise ValueError(f"OneCycleByProgress: warmup must lie between 0 and 1, got {warmup}")
        self.peak_lr, self.warmup, self.div, self.final_div, self.betas = peak_lr, warmup, div, final_div, betas

    def before_train(self, runner: Runner) -> None:
        """Remember the ratio of the groups' learning rates."""
        groups = runner.optim_wrapper.optimizer.param_groups
        self.ratios = [group["lr"] / groups[0]["lr"] for group in groups]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the learning rate and beta1 of this iteration."""
        rate, beta1 = self.at(runner.train_loop.progress)
        for group, ratio in zip(runner.optim_wrapper.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = rate * ratio
            if "betas" in group:
                group["betas"] = (beta1, group["betas"][1])

    def at(self, progress: float) -> tuple[float, float]:
        """Return ``(learning rate, beta1)`` at a share ``progress`` of the run."""
        outer, inner = self.betas
        if progress < self.warmup:
            share = progress / self.warmup
            return _cosine(self.peak_lr / self.div, self.peak_lr, share), _cosine(outer, inner, share)
        share = (progress - self.warmup) / (1 - self.warmup)
        return _cosine(self.peak_lr, self.peak_lr / self.final_div, share), _cosine(inner, outer, share)


def _cosine(start: float, end: float, share: float) -> float:
    """Go from ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
