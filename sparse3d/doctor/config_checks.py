"""Checks that need no data: the machine, the grid, the schedule."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from itertools import accumulate
from operator import mul
from typing import Any

import torch

from ..models import SparseConvBranch
from ..registry import MODELS
from ..structures import Grid
from .subject import NOTE, OK, PROBLEM, Finding, Subject

GIGABYTE = 1e9


# -- environment -------------------------------------------------------------------------------------------------------


def check_environment(subject: Subject) -> Iterator[Finding]:
    """Say what there is to compute with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    memory = device_memory() / GIGABYTE
    text = f"Python {platform.python_version()}, torch {torch.__version__}, {device}, {memory:.1f} GB of memory"
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        advice = "this torch cannot use the GPU of this machine: install a CUDA build of torch that fits its driver"
        yield Finding("environment", NOTE, text, advice)
    else:
        yield Finding("environment", OK, text)


def device_memory() -> int:
    """Return the memory of the device that models run on, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# -- grid --------------------------------------------------------------------------------------------------------------


def check_grid(subject: Subject) -> Iterator[Finding]:
    """The grid has to be whole, and divisible by the strides of what runs on it."""
    try:
        grid = subject.grid
    except ValueError as error:
        advice = "make each extent of grid.point_range a multiple of grid.voxel_size * grid.stride"
        yield Finding("grid", PROBLEM, str(error), advice)
        return
    branch = subject.config.model.get("point_branch", {})
    yield from _check_strides(grid, branch.get("bev_backbone", {}), _encoder_stride(branch))
    z, y, x = grid.shape
    size = " x ".join(f"{step:g}" for step in grid.voxel_size)
    rows, columns = grid.out_shape
    yield Finding("grid", OK, f"{x} x {y} x {z} voxels of {size} m; the head's map has {columns} x {rows} cells")


def _encoder_stride(branch: Mapping[str, Any]) -> int:
    """Return voxels a cell of the map that the backbone starts from; sparse encoders halve it from stage to stage."""
    kind = MODELS.get(branch["type"]) if branch else None  # a detector of images alone has none
    if kind is None or not issubclass(kind, SparseConvBranch):
        return 1
    return 2 ** (len(branch["backbone"].get("channels", range(4))) - 1)


def _check_strides(grid: Grid, backbone: Mapping[str, Any], start: int) -> Iterator[Finding]:
    if "strides" not in backbone:
        return
    total = start * list(accumulate(backbone["strides"], mul))[-1]
    rows, columns = grid.bev_shape
    if rows % total or columns % total:
        step = total * max(grid.voxel_size[:2])
        yield Finding(
            "grid",
            PROBLEM,
            f"the map of {columns} x {rows} voxels is not divisible by the backbone's strides, {total} together",
            f"make the extents of grid.point_range along x and y multiples of {step:g} m, or change the voxel size",
        )
    if "up_strides" in backbone:
        scale = start * backbone["strides"][0] / backbone["up_strides"][0]
        if scale != grid.stride:
            yield Finding(
                "grid",
                PROBLEM,
                f"the backbone gives a cell for {scale:g} x {scale:g} voxels, grid.stride is {grid.stride}",
                f"set grid.stride={scale:g}, or change strides and up_strides of the backbone",
            )


# -- schedule ----------------------------------------------------------------------------------------------------------


def check_schedule(subject: Subject) -> Iterator[Finding]:
    """The learning rate is for some batch size, and its schedule for some number of epochs."""
    config = subject.config
    if "train_dataloader" not in config or "optim_wrapper" not in config:
        yield Finding("schedule", NOTE, "the config does not train", "add train_dataloader and optim_wrapper")
        return
    yield from _check_ends(config.get("param_scheduler", []), config.get("train_cfg", {}))
    rate, batch = config.optim_wrapper.optimizer.lr, config.train_dataloader.batch_size
    base = config.get("auto_scale_lr", {}).get("base_batch_size")
    text = f"learning rate {rate:g}, {batch} samples a process"
    if base is None or base == batch:
        yield Finding("schedule", OK, text)
        return
    advice = f"train with {base} samples in all, or with --auto-scale-lr (x {batch / base:.3g} for one process)"
    yield Finding("schedule", NOTE, f"{text}; the rate is meant for {base} samples a step", advice)


def _check_ends(schedulers: Any, train_cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """Schedules by epoch must end where the training does."""
    schedulers = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]
    ends = [each["end"] for each in schedulers if each.get("by_epoch", True) and "end" in each]
    epochs = train_cfg.get("max_epochs")
    if ends and epochs is not None and max(ends) != epochs:
        yield Finding(
            "schedule",
            PROBLEM,
            f"the training ends after {epochs} epochs, the schedule of its learning rate after {max(ends)}",
            "scale begin, end and T_max of param_scheduler to max_epochs",
        )
