"""Which samples `skip_bad` passed over: they are noted as their stand-ins arrive, and listed at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from ..structures import Sample


def skipped_samples(samples: Iterable[Sample]) -> list[str]:
    """Return what was wrong with the samples that these stand in for, each once, in their order."""
    return list(dict.fromkeys(reason for sample in samples for reason in sample.get("skipped", ())))


@HOOKS.register_module()
class SkippedSamplesHook(Hook):
    """Log each sample that a data set with ``skip_bad`` passed over, and list all of them at the end of the run.

    What was passed over travels with the samples, so it does not matter which worker met it; the processes of a
    distributed run put their lists together.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, None] = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note what this batch stands in for."""
        self._note(runner, data_batch)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note what this batch stands in for."""
        self._note(runner, data_batch)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note what this batch stands in for."""
        self._note(runner, data_batch)

    def after_train(self, runner: Runner) -> None:
        """List them."""
        self._list(runner)

    def after_test(self, runner: Runner) -> None:
        """List them."""
        self._list(runner)

    def _note(self, runner: Runner, samples: Sequence[Sample]) -> None:
        for reason in skipped_samples(samples):
            if reason not in self.reasons:
                self.reasons[reason] = None
                runner.logger.warning("skipped: %s", reason)

    def _list(self, runner: Runner) -> None:
        everywhere = dict.fromkeys(reason for reasons in all_gather_object(list(self.reasons)) for reason in reasons)
        lines = [f"skip_bad: {len(everywhere)} samples could not be loaded, others stood in for them", *everywhere]
        if everywhere:
            runner.logger.warning("\n  ".join(lines))
