"""Multi-view sampling at the size of SparseBEV's published configs, two frames of it, forward and backward."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator

import torch

from ops_suites.timing import Case, Function
from sparse3d_ops.sampling import sample_views, sample_views_reference

QUERIES, GROUPS, FRAMES, POINTS, CAMERAS, CHANNELS = 900, 4, 2, 4, 6, 256
LEVELS = ((64, 176), (32, 88), (16, 44), (8, 22))
OUTSIDE = 0.15  # half of the points of a trained model lie outside of the one image that they are looked for in


def sampling_suite(_: Namespace) -> Iterator[Case]:
    """Sampling forward alone, and with the gradients of features, locations and weights."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, QUERIES, GROUPS, FRAMES, POINTS, 1)
    # channels-last, as the convolutions of the image branch leave them
    features = [torch.randn(1, FRAMES, CAMERAS, *size, CHANNELS, generator=generator).movedim(-1, 3) for size in LEVELS]
    locations = torch.rand(*shape, 2, generator=generator) * (1 + 2 * OUTSIDE) - OUTSIDE
    views = torch.randint(CAMERAS, shape, generator=generator)
    weights = torch.rand(*shape, len(LEVELS), generator=generator)

    def forward(sample: Callable) -> Function:
        return lambda: sample(features, locations, views, weights)

    def both(sample: Callable) -> Function:
        leaves = [each.detach().requires_grad_() for each in (locations, weights, *features)]
        return lambda: torch.autograd.grad(sample(leaves[2:], leaves[0], views, leaves[1]).sum(), leaves)

    for name, pass_ in (("forward", forward), ("forward and backward", both)):
        others = {"grid_sample": pass_(sample_views_reference)}
        yield Case(f"{FRAMES} frames, {QUERIES} queries, {name}", pass_(sample_views), others)
