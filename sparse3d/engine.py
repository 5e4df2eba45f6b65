"""What mmengine 0.10 needs on current PyTorch and on a CPU, in one place.

* Checkpoints hold plain containers, numbers, strings and tensors only, so `torch.load(weights_only=True)` (the default
  since torch 2.6) reads them back, and they are written under another name first.
* Mixed precision works on a CPU (bfloat16) as well as on CUDA (bfloat16, or float16 with loss scaling).
* `--launcher pytorch` works on a CPU: gloo instead of NCCL, and a DDP without device ids.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner as MMEngineRunner
from torch import Tensor, nn

from .registry import HOOKS, OPTIM_WRAPPERS

PARTIAL_SUFFIX = ".partial"


class Runner(MMEngineRunner):
    """mmengine's Runner, at home on current PyTorch and on a CPU.

    Same arguments and same configs as ``mmengine.runner.Runner``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Two runners started in the same second would share logger and MessageHub under mmengine's default name.
        if kwargs.get("experiment_name") is None:
            kwargs["experiment_name"] = f"{_config_name(kwargs.get('cfg'))}_{uuid.uuid4().hex[:8]}"
        super().__init__(*args, **kwargs)
        self.register_hook(PlainCheckpointHook(), priority="VERY_LOW")

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; it gets its final name only when it is whole."""
        partial = filename + PARTIAL_SUFFIX
        super().save_checkpoint(out_dir, partial, *args, **kwargs)
        if (Path(out_dir) / partial).exists():  # only the first process writes
            os.replace(Path(out_dir) / partial, Path(out_dir) / filename)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training; on a CPU without device ids, which DDP refuses there."""
        if not self.distributed or torch.cuda.is_available() or model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        return MMDistributedDataParallel(
            module=model,
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get("find_unused_parameters", False),
        )


def build_runner(config: Config, *, work_dir: str, launcher: str = "none", amp: bool = False) -> Runner:
    """Build the runner of a resolved config.

    Args:
        config: what ``sparse3d.config.load_config`` returned; completed in place.
        work_dir: folder for checkpoints, logs and pictures.
        launcher: ``"none"``, or ``"pytorch"`` under ``torchrun``, or ``"slurm"``.
        amp: train and test in mixed precision (bfloat16 unless the config's optimizer wrapper says otherwise).
    """
    config.work_dir = str(work_dir)
    config.launcher = launcher
    if amp and "optim_wrapper" in config:
        config.optim_wrapper.type = "AmpOptimWrapper"
    if launcher == "pytorch" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return Runner.from_cfg(config)


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Mixed-precision optimizer wrapper for any device, under mmengine's name.

    Args:
        dtype: ``"bfloat16"`` or ``"float16"``; float16 scales the loss and needs CUDA.
        kwargs: arguments of ``mmengine.optim.OptimWrapper``.
    """

    def __init__(self, dtype: str = "bfloat16", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dtype not in ("bfloat16", "float16"):
            raise ValueError(f"AmpOptimWrapper: dtype must be 'bfloat16' or 'float16', got {dtype!r}")
        self.device_type = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "float16" and self.device_type == "cpu":
            raise ValueError("AmpOptimWrapper: float16 needs CUDA; use dtype='bfloat16' on a CPU")
        self.dtype = getattr(torch, dtype)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=dtype == "float16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), torch.autocast(self.device_type, self.dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate the (scaled) loss."""
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Unscale, clip, and update the parameters."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict:
        """Return the optimizer's state with the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what ``state_dict`` returned; a state saved without mixed precision is welcome too."""
        state = dict(state_dict)
        scaler_state = state.pop("loss_scaler", None)
        if scaler_state:
            self.scaler.load_state_dict(scaler_state)
        super().load_state_dict(state)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints free of objects that only pickle can hold.

    mmengine stores the history of every logged scalar as ``HistoryBuffer`` objects. On the way out they become pairs of
    float64 tensors, on the way in they become buffers again.
    """

    def before_save_checkpoint(self, runner: MMEngineRunner, checkpoint: dict) -> None:
        """Turn history buffers and numpy scalars into tensors and numbers."""
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {name: _history_to_tensors(buffer) for name, buffer in hub["log_scalars"].items()}
        hub["runtime_info"] = {name: _plain(value) for name, value in hub["runtime_info"].items()}

    def after_load_checkpoint(self, runner: MMEngineRunner, checkpoint: dict) -> None:
        """Turn the tensors of a checkpoint of ours back into history buffers."""
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        for name, value in scalars.items():
            if isinstance(value, dict):
                scalars[name] = _history_from_tensors(value)


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


def _config_name(config: Config | None) -> str:
    filename = getattr(config, "filename", None)
    return Path(filename).stem if filename else "sparse3d"
