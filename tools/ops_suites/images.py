"""Kernels of 2D detectors at the sizes of MV2D's published config: RoIAlign, deformable convolution, suppression."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ops_suites.timing import Case, Function
from sparse3d_ops.boxes_2d import nms_2d, nms_2d_reference
from sparse3d_ops.deform_conv import deform_conv2d, deform_conv2d_reference
from sparse3d_ops.roi_align import roi_align, roi_align_reference

CAMERAS, IMAGE = 6, (512, 1408)


def images_suite(_: Namespace) -> Iterator[Case]:
    """Boxes of six images on a map of stride 16; a layer of the third stage; the anchors of one level."""
    generator = torch.Generator().manual_seed(0)
    yield from _roi_align_cases(generator)
    yield from _deform_conv_cases(generator)
    boxes, scores = random_boxes(1000, generator), torch.rand(1000, generator=generator)
    yield Case(
        "suppression, 1000 boxes",
        lambda: nms_2d(boxes, scores, 0.7),
        {"reference": lambda: nms_2d_reference(boxes, scores, 0.7)},
    )


def _roi_align_cases(generator: torch.Generator) -> Iterator[Case]:
    features = torch.randn(CAMERAS, IMAGE[0] // 16, IMAGE[1] // 16, 256, generator=generator).movedim(-1, 1)
    boxes, index = random_boxes(300, generator), torch.randint(CAMERAS, (300,), generator=generator)

    def run(function: Callable[..., Tensor], leaf: Tensor) -> Tensor:
        return function(leaf, boxes, index, 7, 1 / 16)

    yield from _both_passes("RoIAlign, 300 boxes", run, (roi_align, roi_align_reference), [features])


def _deform_conv_cases(generator: torch.Generator) -> Iterator[Case]:
    height, width = IMAGE[0] // 16, IMAGE[1] // 16
    x = torch.randn(1, height, width, 256, generator=generator).movedim(-1, 1)
    offsets = torch.randn(1, 18, height, width, generator=generator)
    weight, mask = (torch.rand(*shape, generator=generator) for shape in ((256, 256, 3, 3), (1, 9, height, width)))

    def run(function: Callable[..., Tensor], *leaves: Tensor) -> Tensor:
        return function(*leaves[:3], mask=leaves[3], padding=1)

    functions = (deform_conv2d, deform_conv2d_reference)
    yield from _both_passes("deformable convolution, 1 image", run, functions, [x, offsets, weight, mask])


def _both_passes(
    name: str,
    run: Callable[..., Tensor],
    functions: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    tensors: list[Tensor],
) -> Iterator[Case]:
    """Yield a case without and one with the gradients of all tensors."""

    def forward_backward(function: Callable[..., Tensor]) -> Function:
        leaves = [each.detach().requires_grad_() for each in tensors]
        return lambda: torch.autograd.grad(run(function, *leaves).sum(), leaves)

    ours, reference = functions
    yield Case(name, lambda: run(ours, *tensors), {"reference": lambda: run(reference, *tensors)}, "forward")
    yield Case(name, forward_backward(ours), {"reference": forward_backward(reference)}, "forward + backward")


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Return boxes ``[N, 4]`` of the sizes of road users in an image."""
    height, width = IMAGE
    low = torch.rand(count, 2, generator=generator) * torch.tensor([width * 0.9, height * 0.8])
    size = 8 + 150 * torch.rand(count, 2, generator=generator) ** 3
    return torch.cat([low, low + size], dim=1)
