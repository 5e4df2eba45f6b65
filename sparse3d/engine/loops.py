"""Training loops that resume anywhere: in the middle of an epoch, without loading what was seen already.

All chance of an iteration is a function of (seed, process, iteration): generators are seeded before each one. So a
resumed run draws what the uninterrupted one drew, on any device, and no generator's state needs to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import mmengine.runner
import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..registry import LOOPS


@LOOPS.register_module()
class EpochBasedTrainLoop(mmengine.runner.EpochBasedTrainLoop):
    """mmengine's loop over epochs, under its name, which goes on where a checkpoint was saved."""

    def run_epoch(self) -> None:
        """Train what is left of an epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        seen = self._iter - self._epoch * len(self.dataloader)
        for place, batch in enumerate(_batches(self.dataloader, seen), seen):
            self.run_iter(place, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train one iteration."""
        seed_iteration(self.runner, self._iter)
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class IterBasedTrainLoop(mmengine.runner.IterBasedTrainLoop):
    """mmengine's loop over iterations, under its name, which goes on where a checkpoint was saved."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_iters: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_iters, **kwargs)
        del self.dataloader_iterator  # it has begun at the beginning

    def run(self) -> torch.nn.Module:
        """Train, and validate at the intervals."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        batches = _endless_batches(self.dataloader, self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if self._validates():
                self.runner.val_loop.run()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train one iteration."""
        seed_iteration(self.runner, self._iter)
        super().run_iter(data_batch)

    def _validates(self) -> bool:
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self.runner.val_loop is not None and self._iter >= self.val_begin and due


def seed_iteration(runner: Runner, iteration: int) -> None:
    """Seed python's, numpy's and torch's generators for one iteration of this process."""
    words = np.random.SeedSequence([runner.seed, runner.rank, iteration]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def _batches(dataloader: DataLoader, seen: int) -> Iterator[Any]:
    """Yield the batches of an epoch after the first ``seen`` ones, which are not loaded if the sampler can skip."""
    sampler = getattr(dataloader.batch_sampler, "sampler", None)
    if hasattr(sampler, "skip") and dataloader.batch_size is not None:
        sampler.skip = seen * dataloader.batch_size
        yield from dataloader
    else:
        yield from islice(dataloader, seen, None)


def _endless_batches(dataloader: DataLoader, seen: int) -> Iterator[Any]:
    """Yield batches epoch after epoch, after the first ``seen`` ones of all."""
    sampler = dataloader.batch_sampler.sampler
    if isinstance(sampler, InfiniteSampler):
        yield from _batches(dataloader, seen)
    epoch, seen = divmod(seen, len(dataloader))
    while True:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield from _batches(dataloader, seen)
        epoch, seen = epoch + 1, 0
