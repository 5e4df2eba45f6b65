"""Stops training at the first loss, activation or gradient that is not finite, and says where it came from.

Losses and gradients are looked at in every iteration, before the optimizer steps, so the weights stay as they were.
Looking at every module's output costs a pass over all activations, so it happens at intervals, and whenever a loss or
a gradient is bad: the iteration is then repeated with the same chance, and the first module with a bad output is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..registry import HOOKS
from .loops import seed_iteration


class NonFiniteError(RuntimeError):
    """A loss, activation or gradient is NaN or infinite; the message says which, and in which samples."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop at the first number that is not finite.

    Args:
        activation_interval: look at every module's output each so many iterations.

    Raises:
        NonFiniteError: during training; the batch is saved in the work directory.
    """

    priority = "VERY_HIGH"

    def __init__(self, activation_interval: int = 50) -> None:
        if activation_interval < 1:
            raise ValueError(f"NonFiniteHook: activation_interval must be at least 1, got {activation_interval}")
        self.activation_interval = activation_interval
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Watch what the model returns and what the optimizer is about to apply."""
        model = _unwrapped(runner.model)

        def check_losses(module: nn.Module, arguments: Any, output: Any) -> None:
            if module.training and isinstance(output, Mapping):
                self._check_losses(runner, output)

        def check_gradients(optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
            self._check_gradients(runner, model)

        self._handles = [
            model.register_forward_hook(check_losses),
            runner.optim_wrapper.optimizer.register_step_pre_hook(check_gradients),
        ]

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the batch; at the intervals, watch every module of the coming forward pass."""
        self._batch = data_batch
        if runner.iter % self.activation_interval == 0:
            self._watch = _Watch(_unwrapped(runner.model))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Forget the batch."""
        self._batch = None

    def _check_losses(self, runner: Runner, losses: Mapping[str, Any]) -> None:
        watch, self._watch = getattr(self, "_watch", None), None
        if watch is not None:
            watch.close()
            if name := watch.first_bad():
                self._stop(runner, f"the output of {name} is not finite")
        values = {name: value for name, value in losses.items() if isinstance(value, Tensor)}
        if values and not _all_finite(values.values()):
            bad = [
                f"{name} = {float(value.detach().sum()):g}"
                for name, value in values.items()
                if not value.isfinite().all()
            ]
            self._stop(runner, ", ".join(bad), search=True)

    def _check_gradients(self, runner: Runner, model: nn.Module) -> None:
        gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        if gradients and not _all_finite(gradients.values()):
            bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
            shown = ", ".join(bad[-3:]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
            self._stop(runner, f"the gradient of {shown} is not finite", search=True)

    def _stop(self, runner: Runner, what: str, *, search: bool = False) -> None:
        batch, self._batch = self._batch, None
        if search and (name := _first_bad_module(runner, batch)):
            what += f"; the first output that is not finite is that of {name}"
        path = Path(runner.work_dir) / f"non_finite_iter_{runner.iter}.pt"
        torch.save(batch, path)
        raise NonFiniteError(
            f"iteration {runner.iter}: {what}. Samples: {', '.join(_names(batch))}. The optimizer has not stepped; the "
            f"batch is saved as {path} (torch.load(..., weights_only=False))"
        )


class _Watch:
    """Remembers, without waiting for the device, whether each module's output is finite."""

    def __init__(self, model: nn.Module) -> None:
        self.names: list[str] = []
        self.flags: list[Tensor] = []
        self._handles = [
            module.register_forward_hook(self._recorder(name))
            for name, module in model.named_modules()
            if not any(True for _ in module.children())
        ]

    def _recorder(self, name: str) -> Any:
        def record(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                self.names.append(f"{name} ({type(module).__name__}, {list(output.shape)})")
                self.flags.append(output.detach().isfinite().all())

        return record

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def first_bad(self) -> str | None:
        if not self.flags:
            return None
        bad = (~torch.stack(self.flags)).nonzero()
        return self.names[int(bad[0])] if len(bad) else None


def _first_bad_module(runner: Runner, batch: Any) -> str | None:
    """Repeat the forward pass of this iteration and return the first module whose output is not finite."""
    model = _unwrapped(runner.model)
    with _watching(model) as watch, torch.no_grad(), runner.optim_wrapper.optim_context(runner.model):
        seed_iteration(runner, runner.iter)
        data = model.data_preprocessor(batch, True)
        model.forward(**data, mode="loss") if isinstance(data, Mapping) else model.forward(*data, mode="loss")
    return watch.first_bad()


@contextmanager
def _watching(model: nn.Module) -> Iterator[_Watch]:
    watch = _Watch(model)
    try:
        yield watch
    finally:
        watch.close()


def _all_finite(tensors: Any) -> bool:
    return bool(torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all())


def _names(batch: Any) -> list[str]:
    """Return what the samples of a batch are called."""
    if not isinstance(batch, Sequence):
        return ["unnamed"]
    frames = [getattr(sample, "frame", None) for sample in batch]
    return [f"number {place}" if frame is None else frame.token for place, frame in enumerate(frames)]


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
