"""Fully sharded training (FSDP2): each of W processes keeps 1/W of the weights, gradients and optimizer state.

A unit is gathered when it is computed and freed afterwards, so a process holds one whole unit at a time (Zhao et al.,
"PyTorch FSDP", VLDB 2023). What is computed is what DDP computes. Checkpoints hold whole tensors, and a run may go on
from them sharded or not, on any number of processes.

mmengine's own strategy wraps the older FSDP1 and trains on CUDA only; `fully_shard` also works on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(model: nn.Module, units: Sequence[nn.Module]) -> None:
    """Shard a model in place; called by all processes, with the same weights in each.

    Args:
        model: the model, on the device that it trains on; its parameters become ``DTensor``s.
        units: modules inside it to be gathered one at a time; what lies in none of them is one more unit.
    """
    mesh = init_device_mesh(next(model.parameters()).device.type, (get_world_size(),))
    for unit in (*units, model):
        fully_shard(unit, mesh=mesh)
    model.register_load_state_dict_pre_hook(_shard_weights)


def is_sharded(model: nn.Module) -> bool:
    """Return whether ``shard`` was called on a model."""
    return isinstance(model, FSDPModule)


def whole(value: Any) -> Any:
    """Gather the shards in nested containers: whole tensors on the CPU; called by all processes."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return type(value)((key, whole(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(whole(item) for item in value)
    return value


def sharded_like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Return this process's shard of a whole tensor, if ``reference`` is sharded and of the same shape."""
    if not isinstance(reference, DTensor) or isinstance(tensor, DTensor) or tensor.shape != reference.shape:
        return tensor
    tensor = tensor.to(reference.device)
    # Every process has the whole tensor, so nothing needs to be sent.
    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)


def load_whole_state(optimizer: Optimizer) -> None:
    """Let the optimizer of a sharded model load whole tensors."""
    optimizer.register_load_state_dict_pre_hook(_shard_optimizer_state)


def _shard_weights(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, parameter in model.named_parameters():
        if prefix + name in state_dict:
            state_dict[prefix + name] = sharded_like(state_dict[prefix + name], parameter)


def _shard_optimizer_state(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    state = dict(state_dict["state"])
    for number, parameter in zip(numbers, parameters, strict=True):
        if number in state:
            state[number] = {
                name: sharded_like(value, parameter) if torch.is_tensor(value) else value
                for name, value in state[number].items()
            }
    return {**state_dict, "state": state}
