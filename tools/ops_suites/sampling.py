"""Multi-view sampling at the size of SparseBEV's published configs, two frames of it: time and peak memory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ops_suites.memory import peak_memory
from ops_suites.timing import Case, Function
from sparse3d_ops.sampling import sample_views, sample_views_reference

QUERIES, GROUPS, FRAMES, POINTS, CAMERAS, CHANNELS = 900, 4, 2, 4, 6, 256
LEVELS = ((64, 176), (32, 88), (16, 44), (8, 22))
FEW = ((4, 11), (2, 6), (1, 3), (1, 2))
OUTSIDE = 0.15  # half of the points of a trained model lie outside of the one image that they are looked for in
SAMPLE: dict[str, Callable[..., Tensor]] = {"sparse3d": sample_views, "grid_sample": sample_views_reference}


def sampling_suite(_: Namespace) -> Iterator[Case]:
    """Sampling forward alone; with the gradients of features, locations and weights; and the memory of that."""
    name = f"{FRAMES} frames, {QUERIES} queries"
    inputs = make_inputs(QUERIES, LEVELS)
    for step, pass_ in (("forward", forward), ("forward + backward", forward_backward)):
        ours, theirs = (pass_(sample, inputs) for sample in SAMPLE.values())
        yield Case(name, ours, {"grid_sample": theirs}, step)
    memory = {by: lambda by=by: peak_memory(few_and_all, by) for by in SAMPLE}
    yield Case(name, memory.pop("sparse3d"), memory, "forward + backward, peak memory", unit="MiB")


def make_inputs(queries: int, levels: tuple[tuple[int, int], ...]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return features, locations, views and weights of ``sample_views``."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, queries, GROUPS, FRAMES, POINTS, 1)
    # channels-last, as the convolutions of the image branch leave them
    features = [torch.randn(1, FRAMES, CAMERAS, *size, CHANNELS, generator=generator).movedim(-1, 3) for size in levels]
    locations = torch.rand(*shape, 2, generator=generator) * (1 + 2 * OUTSIDE) - OUTSIDE
    views = torch.randint(CAMERAS, shape, generator=generator)
    weights = torch.rand(*shape, len(levels), generator=generator)
    return features, locations, views, weights


def forward(sample: Callable[..., Tensor], inputs: tuple[list[Tensor], Tensor, Tensor, Tensor]) -> Function:
    """Return sampling alone."""
    return lambda: sample(*inputs)


def forward_backward(sample: Callable[..., Tensor], inputs: tuple[list[Tensor], Tensor, Tensor, Tensor]) -> Function:
    """Return sampling with all its gradients."""
    features, locations, views, weights = inputs
    leaves = [each.detach().requires_grad_() for each in (locations, weights, *features)]
    return lambda: torch.autograd.grad(sample(leaves[2:], leaves[0], views, leaves[1]).sum(), leaves)


def few_and_all(by: str) -> tuple[Function, Function]:
    """Return sampling with gradients on small maps and at full size."""
    few, whole = (forward_backward(SAMPLE[by], make_inputs(*size)) for size in ((2, FEW), (QUERIES, LEVELS)))
    return few, whole
