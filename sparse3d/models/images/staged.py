"""What image backbones of stages have in common: which outputs, what is frozen, what is recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class StagedBackbone(BaseModule):
    """A stem and stages, one after the other.

    Args:
        stem: images ``[N, 3, H, W]`` -> features.
        stages: features -> features.
        out_stages: stages (from 0) whose output is returned.
        frozen_stages: -1 trains everything, 0 freezes the stem, n > 0 the first n stages too. What is frozen stays in
            eval mode, and so is what is done to its output.
        norm_eval: BatchNorm keeps to its running statistics in training; scale and shift are still learned.
        norm_learned: whether they are.
        checkpointing: compute the stages again in the backward pass instead of keeping what is inside of them.
        outputs: what is done to the output of a stage before it is returned; nothing, where a stage has no entry.

    Raises:
        ValueError: if a stage does not exist.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        out_stages: Sequence[int],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        checkpointing: bool = False,
        outputs: Mapping[int, nn.Module] | None = None,
        norm_learned: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not out_stages or not 0 <= min(out_stages) <= max(out_stages) < len(stages):
            raise ValueError(f"out_stages: expected some of 0 to {len(stages) - 1}, got {tuple(out_stages)}")
        if not -1 <= frozen_stages <= len(stages):
            raise ValueError(f"frozen_stages: expected -1 to {len(stages)}, got {frozen_stages}")
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.outputs = nn.ModuleDict({str(number): module for number, module in (outputs or {}).items()})
        self.out_stages = tuple(out_stages)
        self.frozen_stages, self.norm_eval, self.checkpointing = frozen_stages, norm_eval, checkpointing
        for part in self._frozen():
            part.requires_grad_(False)
        if not norm_learned:
            for norm in self._norms():
                norm.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one ``[N, C, h, w]`` for each of ``out_stages``, finest first."""
        x, outputs = self.stem(images), []
        for number, stage in enumerate(self.stages):
            x = self._run(stage, x)
            if number in self.out_stages:
                outputs.append(self.outputs[str(number)](x) if str(number) in self.outputs else x)
        return outputs

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and self.training and any(p.requires_grad for p in stage.parameters()):
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        outputs = [module for number, module in self.outputs.items() if int(number) < self.frozen_stages]
        return [self.stem, *self.stages[: self.frozen_stages], *outputs]

    def train(self, mode: bool = True) -> StagedBackbone:
        """Set the mode; frozen parts, and with ``norm_eval`` all BatchNorms, stay in eval mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self.norm_eval:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]
