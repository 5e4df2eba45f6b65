"""Stops training at the first loss, activation or gradient that is not finite, and says where it came from.

Each module's output, the losses among them, and each parameter's gradient are summed as they appear: a sum is finite
only if all that went into it is. The sums stay on the device; they are looked at once after the forward and once after
the backward pass, so what a healthy iteration pays is one more pass over its activations. As modules finish in the
order of computation, the first bad sum is that of the module where it began; gradients appear in the opposite order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..registry import HOOKS
from .files import writing_whole


class NonFiniteError(RuntimeError):
    """A loss, activation or gradient is NaN or infinite; the message says which, and in which samples."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop at the first number that is not finite; the optimizer does not step on it, and the batch is saved.

    With float16 the scaler of the loss expects infinite gradients now and then and skips their steps by itself, so
    gradients are not looked at there.

    Raises:
        NonFiniteError: during training; the batch and the weights are saved in the work directory.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._sums: list[tuple[str, Tensor]] = []
        self._batch: Any = None  # of the iteration that runs, None between iterations
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the outputs of the modules, the gradients of the parameters, and what the optimizer will apply."""
        model = _unwrapped(runner.model)
        self._handles = [
            module.register_forward_hook(partial(self._see_output, f"the output of {name} ({type(module).__name__})"))
            for name, module in _watchable_modules(model)
        ]
        self._handles.append(model.register_forward_hook(partial(self._see_losses, runner)))
        scaler = getattr(runner.optim_wrapper, "scaler", None)
        if scaler is None or not scaler.is_enabled():
            self._handles += [
                parameter.register_post_accumulate_grad_hook(partial(self._see_gradient, f"the gradient of {name}"))
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            ]
        self._handles.append(runner.optim_wrapper.optimizer.register_step_pre_hook(partial(self._before_step, runner)))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin to watch an iteration."""
        self._batch = data_batch
        self._sums.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the gradients of an iteration in which the optimizer did not step."""
        self._check(runner)
        self._batch = None

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def _see_output(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if self._batch is not None:
            self._sums += [(f"{name}, {list(each.shape)}", _sum(each)) for each in _float_tensors(output)]

    def _see_losses(self, runner: Runner, model: nn.Module, arguments: Any, losses: Any) -> None:
        if self._batch is not None and isinstance(losses, Mapping):
            for name, value in losses.items():
                self._sums += [(name, _sum(each)) for each in _float_tensors(value)]
            self._check(runner)

    def _see_gradient(self, name: str, parameter: Tensor) -> None:
        if self._batch is not None:
            self._sums.append((name, _sum(parameter.grad)))

    def _before_step(self, runner: Runner, optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
        self._check(runner)
        if runner.distributed:  # another process may have had the bad sample
            groups = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self._sums = [
                ("a gradient of another process", _sum(each.grad)) for each in groups if each.grad is not None
            ]
            self._check(runner)

    def _check(self, runner: Runner) -> None:
        """Stop if one of the sums is not finite, and forget them."""
        names, sums = [name for name, _ in self._sums], [value for _, value in self._sums]
        self._sums = []
        if not sums:
            return
        bad = (~torch.stack([value.to(sums[-1].device) for value in sums]).isfinite()).nonzero()
        if len(bad):
            self._stop(runner, f"{names[int(bad[0])]} is not finite ({sums[int(bad[0])].item():g})")

    def _stop(self, runner: Runner, what: str) -> None:
        batch, self._batch = self._batch, None
        path = Path(runner.work_dir) / f"non_finite_iter_{runner.iter}_rank_{runner.rank}.pt"
        saved = {"batch": batch, "state_dict": _unwrapped(runner.model).state_dict(), "seed": runner.seed}
        with writing_whole(path) as partial_path:
            torch.save(saved, partial_path)
        raise NonFiniteError(
            f"iteration {runner.iter}: {what}. Samples: {', '.join(_names(batch))}. The optimizer has not stepped; "
            f"batch and weights are saved as {path} (torch.load(..., weights_only=False))"
        )


def _watchable_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules inside a model, without those that ``torch.compile`` dissolved."""
    compiled = {
        inner for module in model.modules() if module._compiled_call_impl is not None for inner in module.modules()
    }
    return [(name, module) for name, module in model.named_modules() if name and module not in compiled]


def _sum(values: Tensor) -> Tensor:
    """Sum where finite numbers cannot add up to infinity; of a sharded tensor, the part that this process has."""
    if isinstance(values, DTensor):
        values = values.to_local()
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return values.detach().sum(dtype=wide)


def _float_tensors(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in what a module returned."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
        return
    if isinstance(value, Mapping):
        value = value.values()
    elif is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    elif not isinstance(value, (list, tuple)):
        return
    for each in value:
        yield from _float_tensors(each)


def _names(batch: Any) -> list[str]:
    """Return what the samples of a batch are called."""
    if not isinstance(batch, Sequence):
        return ["unnamed"]
    frames = [getattr(sample, "frame", None) for sample in batch]
    return [f"number {place}" if frame is None else frame.token for place, frame in enumerate(frames)]


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
