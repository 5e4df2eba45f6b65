"""Multiply-adds and parameters of a detector on one sample.

Every product is counted where it happens, as the matrix products and convolutions that PyTorch runs. Sparse
convolutions run in their reference form for this, one matrix product a tap over the pairs that the kernel map of this
sample really has: empty space costs nothing, and a denser scan costs more. Norms, activations, gathers and sums are not
counted, as is the custom of the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparse3d_ops.sparse.backends import use_backend

from ..structures import Sample

FLOPS_A_MULTIPLY_ADD = 2
GLOBAL = "Global"  # what the counter calls everything together


@dataclass(frozen=True)
class Cost:
    """What a part of a model costs.

    Args:
        name: of the part, empty for the whole.
        multiply_adds: on the sample that was counted.
        parameters: numbers that are learned.
    """

    name: str
    multiply_adds: int
    parameters: int


@torch.no_grad()
def count_costs(detector: nn.Module, samples: Sequence[Sample], depth: int = 2) -> list[Cost]:
    """Return the costs of the whole model and of its parts, in the order of the modules.

    Args:
        detector: a ``Detector3D``; it is put into eval mode, and its parameters ask for no gradients any more.
        samples: a batch, after the test pipeline.
        depth: how many levels of parts to list; 0 lists the whole alone.
    """
    detector.eval().requires_grad_(False)  # the counter follows gradients, and stumbles over parameters as inputs
    with FlopCounterMode(display=False, depth=depth + 1) as counter, use_backend("reference"):
        detector.test_step(list(samples))
    counted = counter.get_flop_counts()
    root = type(detector).__name__
    names = ["", *(name for name, _ in detector.named_modules() if name and name.count(".") < depth)]
    return [
        Cost(
            name,
            sum(counted.get(f"{root}.{name}" if name else GLOBAL, {}).values()) // FLOPS_A_MULTIPLY_ADD,
            sum(each.numel() for each in detector.get_submodule(name).parameters()),
        )
        for name in names
    ]
