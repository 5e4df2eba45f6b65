"""When checkpoints are saved and removed, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mmengine.hooks
import numpy as np
import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..registry import HOOKS
from .provenance import provenance
from .sharding import is_sharded, sharded_like, whole

GRADIENTS = "pending_gradients"  # where a checkpoint holds what was accumulated for a step that is still to come
BATCHES = "batches_per_epoch"


@HOOKS.register_module()
class CheckpointHook(mmengine.hooks.CheckpointHook):
    """mmengine's hook, under its name, which removes an old checkpoint only when the new one is on the disk."""

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._removing_afterwards(partial(super()._save_checkpoint_with_step, runner, step, meta))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self._removing_afterwards(partial(super()._save_best_checkpoint, runner, metrics))

    def _removing_afterwards(self, save: Callable[[], None]) -> None:
        backend = self.file_backend
        if isinstance(backend, _LateRemoval):  # saving the best one saves the latest one again
            save()
            return
        self.file_backend = _LateRemoval(backend)
        try:
            save()
            self.file_backend.remove_now()
        finally:
            self.file_backend = backend


class _LateRemoval:
    """A file backend that removes when it is told to."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._removals: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._removals.append(partial(self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._removals.append(partial(self._backend.rmtree, path))

    def remove_now(self) -> None:
        for removal in self._removals:
            removal()


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints free of objects that only pickle can hold, and complete them.

    mmengine stores the history of every logged scalar as ``HistoryBuffer`` objects. On the way out they become pairs of
    float64 tensors, on the way in they become buffers again. A checkpoint also says what the run was made of, and holds
    the gradients that were accumulated for a step that is still to come.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn history buffers and numpy scalars into tensors and numbers; add provenance and gradients."""
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {name: _history_to_tensors(buffer) for name, buffer in hub["log_scalars"].items()}
        hub["runtime_info"] = {name: _plain(value) for name, value in hub["runtime_info"].items()}
        about = {"provenance": provenance(runner), BATCHES: len(runner.train_dataloader)}
        checkpoint["meta"] = _plain({**checkpoint["meta"], **about})
        for name in runner.gathered.keys() & checkpoint.keys():
            checkpoint[name].update(runner.gathered[name])
        if runner.pending_gradients:
            checkpoint[GRADIENTS] = runner.pending_gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the tensors of a checkpoint of ours back into history buffers; give the runner the gradients."""
        runner.pending_gradients = checkpoint.get(GRADIENTS, {})
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        for name, value in scalars.items():
            if isinstance(value, dict):
                scalars[name] = _history_from_tensors(value)


def collect_gradients(optim_wrapper: OptimWrapper, model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients that wait for more to be accumulated, averaged over the processes; called by all of them."""
    if optim_wrapper._accumulative_counts == 1 or optim_wrapper.should_update():
        return {}
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    if is_sharded(model):
        return whole(gradients)  # averaged when they were sharded
    if is_distributed():
        for gradient in gradients.values():
            all_reduce(gradient, "mean")
    return {name: gradient.cpu() for name, gradient in gradients.items()}


def restore_gradients(model: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Put back what ``collect_gradients`` returned."""
    for name, each in model.named_parameters():
        if name in gradients:
            each.grad = sharded_like(gradients[name], each).to(each.device)


def _history_to_tensors(buffer: HistoryBuffer) -> dict[str, Tensor]:
    log, count = buffer.data
    return {"log": torch.from_numpy(np.asarray(log, np.float64)), "count": torch.from_numpy(np.asarray(count))}


def _history_from_tensors(tensors: dict[str, Tensor]) -> HistoryBuffer:
    return HistoryBuffer(tensors["log"].cpu().numpy(), tensors["count"].cpu().numpy())


def _plain(value: Any) -> Any:
    """Replace numpy scalars and arrays inside containers by numbers and lists."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
