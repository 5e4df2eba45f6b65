"""mmengine's Runner, at home on current PyTorch and on a CPU, and how a config becomes one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmengine.runner
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from .files import CheckpointError, newest_checkpoint, read_checkpoint, writing_whole
from .loops import EpochBasedTrainLoop
from .saving import BATCHES, PlainCheckpointHook, collect_gradients, restore_gradients
from .sharding import is_sharded, load_whole_state, shard, whole


class Runner(mmengine.runner.Runner):
    """mmengine's Runner.

    Same arguments and same configs as ``mmengine.runner.Runner``. What differs: checkpoints are written whole or not at
    all and read without running code, a run resumes from its newest whole one exactly, ``--launcher pytorch`` works on
    a CPU, and testing with weights that do not fit the model is an error.
    """

    trust_checkpoint = False  # read pickled objects from checkpoints as well

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Two runners started in the same second would share logger and MessageHub under mmengine's default name.
        if kwargs.get("experiment_name") is None:
            kwargs["experiment_name"] = f"{_config_name(kwargs.get('cfg'))}_{uuid.uuid4().hex[:8]}"
        self.pending_gradients: dict[str, Tensor] = {}
        self.gathered: dict[str, Any] = {}  # what a checkpoint holds of a sharded model
        self._testing = False
        super().__init__(*args, **kwargs)
        self.register_hook(PlainCheckpointHook(), priority="VERY_LOW")

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; it gets its name only when it is whole. Called by all processes, written by the first.

        Raises:
            CheckpointError: if it cannot be written.
        """
        model = _unwrapped(self.model)
        self.pending_gradients = collect_gradients(self.optim_wrapper, model)
        if is_sharded(model):
            self.gathered = whole({"state_dict": model.state_dict(), "optimizer": self.optim_wrapper.state_dict()})
        if is_main_process():
            with writing_whole(Path(out_dir) / filename) as partial_path:
                super().save_checkpoint(out_dir, partial_path.name, *args, **kwargs)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | torch.device = "cpu",
        strict: bool = False,
        revise_keys: Sequence = ((r"^module.", ""),),
    ) -> dict[str, Any]:
        """Load a checkpoint's weights into the model and return it.

        Raises:
            CheckpointError: if the file is missing, damaged or not to be trusted.
        """
        checkpoint = read_checkpoint(filename, map_location, trusted=self.trust_checkpoint)
        if self._resume:
            _check_resumable(filename, checkpoint, self.train_loop)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        self._has_loaded = True
        self.logger.info(f"weights from {filename}")
        return _load_checkpoint_to_model(_unwrapped(self.model), checkpoint, strict, revise_keys=list(revise_keys))

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint: weights, optimizer, schedules, logs, and gradients that wait for a step.

        Raises:
            CheckpointError: if the file is missing, damaged or not to be trusted.
            ValueError: if the checkpoint's epochs had another number of batches.
        """
        drawn = self.seed
        super().resume(filename, *args, **kwargs)
        if self.pending_gradients:
            restore_gradients(_unwrapped(self.model), self.pending_gradients)
            self.logger.info("accumulated gradients are restored; mmengine's warning that they are lost does not apply")
        sampler = getattr(self.train_dataloader.batch_sampler, "sampler", None)
        if getattr(sampler, "seed", None) == drawn:  # it was built before the checkpoint told the seed of the run
            sampler.seed = self.seed

    def load_or_resume(self) -> None:
        """Resume from the newest whole checkpoint, or from the one that was named; or load its weights."""
        if self._has_loaded:
            return
        if self._resume:
            path = self._load_from or newest_checkpoint(self.work_dir)
            if path is None:
                self.logger.info(f"no checkpoint in {self.work_dir} to resume from: the run begins at the beginning")
            else:
                self.resume(str(path), map_location="cpu")
        elif self._load_from is not None:
            self.load_checkpoint(self._load_from, strict=self._testing)

    def _maybe_compile(self, target: str) -> None:
        if not _names_parts(self.cfg):  # parts are compiled by themselves, not inside a compiled step
            super()._maybe_compile(target)

    def test(self) -> dict[str, float]:
        """Test; the weights have to fit the model exactly."""
        self._testing = True
        return super().test()

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; where its config has no type, ``by_epoch`` decides between our two loops."""
        if isinstance(loop, dict) and "type" not in loop:
            options = dict(loop)
            by_epoch = options.pop("by_epoch", True)
            loop = dict(type="EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop", **options)
        return super().build_train_loop(loop)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training; on a CPU without device ids, which DDP refuses there."""
        if self.distributed and self.cfg.get("shard") is not None:
            self._shard_model()
            return self.model
        if not self.distributed or torch.cuda.is_available() or model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        return MMDistributedDataParallel(
            module=model,
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get("find_unused_parameters", False),
        )

    def _shard_model(self) -> None:
        if any(hook.get("type") == "EMAHook" for hook in self.cfg.get("custom_hooks") or []):
            raise ValueError("shard: EMAHook keeps a whole copy of the model; train without one of the two")
        self.model.to(get_device())
        if self.cfg.get("sync_bn"):
            self.model = convert_sync_batchnorm(self.model, self.cfg.sync_bn)
        super()._init_model_weights()
        shard(self.model, [_part(self.model, "shard", name) for name in self.cfg.shard])

    def _init_model_weights(self) -> None:
        if not is_sharded(self.model):  # those were initialized before they were cut up
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict) -> OptimWrapper:
        """Build the optimizer wrapper."""
        built = super().build_optim_wrapper(optim_wrapper)
        if is_sharded(self.model):
            load_whole_state(built.optimizer)
        return built


def build_runner(
    config: Config,
    *,
    work_dir: str | Path,
    launcher: str = "none",
    amp: bool = False,
    deterministic: bool = False,
    auto_scale_lr: bool = False,
    trust_checkpoint: bool = False,
) -> Runner:
    """Build the runner of a resolved config.

    Besides mmengine's entries, a config may name parts of the model, as ``model.get_submodule`` knows them, in

        recompute = ["point_branch.backbone"]            activation checkpointing: computed again in the backward pass
        compile = dict(parts=["head"], backend="inductor")         given to ``torch.compile``; for dense parts
        shard = ["point_branch", "head"]                           FSDP instead of DDP: units that are gathered in turn

    ``compile`` without ``parts`` is mmengine's and compiles the whole step.

    Args:
        config: what ``sparse3d.config.load_config`` returned; completed in place.
        work_dir: folder for checkpoints, logs and pictures.
        launcher: ``"none"``, or ``"pytorch"`` under ``torchrun``, or ``"slurm"``.
        amp: train in mixed precision, bfloat16 unless the config's optimizer wrapper says otherwise; test in autocast's
            own type, bfloat16 on a CPU and float16 on CUDA.
        deterministic: allow algorithms that repeat their results bit by bit only.
        auto_scale_lr: scale the learning rate by the whole batch size over ``auto_scale_lr.base_batch_size``.
        trust_checkpoint: read checkpoints that hold pickled objects, which can run any code.

    Raises:
        ValueError: if the config does not say what was asked for, or names a part that the model does not have.
    """
    config.work_dir = str(work_dir)
    config.launcher = launcher
    if amp:
        _use_mixed_precision(config)
    if deterministic:
        config.randomness = {**config.get("randomness", {}), "deterministic": True}
    if auto_scale_lr:
        if "base_batch_size" not in config.get("auto_scale_lr", {}):
            raise ValueError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size")
        config.auto_scale_lr.enable = True
    if launcher == "pytorch" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    runner = Runner.from_cfg(config)
    runner.trust_checkpoint = trust_checkpoint
    _recompute_parts(_unwrapped(runner.model), config.get("recompute") or [])
    if _names_parts(config):
        _compile_parts(_unwrapped(runner.model), **config.compile)
    return runner


def _use_mixed_precision(config: Config) -> None:
    if config.get("optim_wrapper"):
        config.optim_wrapper.type = "AmpOptimWrapper"
    for name in ("val_cfg", "test_cfg"):
        if config.get(name):
            config[name].fp16 = True  # mmengine's word for autocast


def _names_parts(config: Config) -> bool:
    return isinstance(config.get("compile"), Mapping) and "parts" in config.compile


def _check_resumable(path: str, checkpoint: Mapping[str, Any], loop: BaseLoop) -> None:
    """Refuse to go on in the middle of epochs that had another length: nobody could say what was seen."""
    meta = checkpoint.get("meta", {})
    if "epoch" not in meta or "optimizer" not in checkpoint:
        raise CheckpointError(f"{path} holds weights alone: a run can begin with them (load_from), but not resume")
    if not isinstance(loop, EpochBasedTrainLoop):
        return
    ours = len(loop.dataloader)
    theirs = meta.get(BATCHES, ours)
    if theirs != ours or not 0 <= meta["iter"] - meta["epoch"] * ours <= ours:
        raise ValueError(
            f"{path} is at epoch {meta['epoch']}, iteration {meta['iter']}, with {theirs} batches an epoch, this run "
            f"has {ours}: resume with the same data and whole batch size, or begin with its weights (load_from)"
        )


def _recompute_parts(model: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        part = _part(model, "recompute", name)
        part.forward = partial(recompute, part.forward, use_reentrant=False)  # type: ignore[method-assign]


def _compile_parts(model: nn.Module, parts: Sequence[str] = (), **options: Any) -> None:
    for name in parts:
        _part(model, "compile", name).compile(**options)


def _part(model: nn.Module, entry: str, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = [child for child, _ in model.named_children()]
        raise ValueError(f"{entry}: the model has no part {name!r}; at the top it has {known}") from error


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _config_name(config: Config | None) -> str:
    filename = getattr(config, "filename", None)
    return Path(filename).stem if filename else "sparse3d"
