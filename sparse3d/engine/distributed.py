"""Counts that losses divide by, over all processes.

DDP averages gradients over W processes. If each divided its sum by its own count, objects of crowded samples would
weigh less than they do in one process. With N objects in all processes together, each one divides by N / W: then the
average of the losses, and of the gradients, is that of one process with the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_count(count: Tensor | int, device: torch.device | None = None) -> Tensor:
    """Return the mean of ``count`` over all processes, where 0 in all of them counts as 1 in one of them.

    Args:
        count: a number of objects.
        device: where to count, for a plain number.
    """
    total = torch.as_tensor(count, dtype=torch.float32, device=device).detach().clone()
    if not (distributed.is_available() and distributed.is_initialized()):
        return total.clamp(min=1)
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()
