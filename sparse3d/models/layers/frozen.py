"""Parts of a module that are not trained, and what their BatchNorms do meanwhile.

"running"   the parts stay in eval mode: they compute what they will compute at test time
"batch"     they stay in training mode: dropout drops, and BatchNorm normalises by the statistics of the batch but
            keeps its running ones, which test time uses; SparseFusion's published recipe does so
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS = ("running", "batch")


class PartlyFrozen(BaseModule):
    """A module that can freeze some of its children."""

    _frozen: tuple[nn.Module, ...] = ()
    _frozen_in_eval = True

    def freeze(self, parts: Sequence[nn.Module], statistics: str) -> None:
        """Stop training ``parts`` for good; see the top of the file for ``statistics``.

        Raises:
            ValueError: if ``statistics`` is another word.
        """
        if statistics not in STATISTICS:
            raise ValueError(f"frozen: must be one of {', '.join(STATISTICS)}, got {statistics!r}")
        self._frozen = tuple(parts)
        self._frozen_in_eval = statistics == "running"
        for part in parts:
            part.requires_grad_(False)
            for module in part.modules():
                if isinstance(module, _BatchNorm):
                    module.track_running_stats = self._frozen_in_eval
        self.train(self.training)

    def train(self, mode: bool = True) -> PartlyFrozen:
        """Set the mode; frozen parts with running statistics stay in eval mode."""
        super().train(mode)
        if self._frozen_in_eval:
            for part in self._frozen:
                part.eval()
        return self
