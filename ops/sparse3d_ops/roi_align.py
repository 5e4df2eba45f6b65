"""RoIAlign: what an image shows inside of boxes, on a grid of cells.

    out[r, c, p, q] = mean over n_y x n_x samples of  bilinear(features[image of r, c], y, x)
    y = s_y + (p + (i + 1/2) / n_y) b_y,     s_y = y1 · scale - 1/2,     b_y = (y2 - y1) · scale / P        x likewise

The half pixel makes coordinates those of pixels' middles ("aligned"). A sample counts as zero where it lies more than
one pixel out of the image, and is taken from the border where it lies less. n is the same for all boxes, or adapts to
each: ceil(b). A box without extent gives zeros.

As y and x separate, a cell is  Σ_y Σ_x  w_y[p, y] · w_x[q, x] · features[y, x]:  two small matrices a box. That is the
reference. Boxes get no gradient, as published. Half precision is averaged in float32.

Source: Mask R-CNN (He et al., ICCV 2017), section 3; half pixel and adaptive sampling after detectron2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import FLOATS, check_count, check_finite, check_index, check_same_device, check_tensor
from ._numba import roi_align as kernels
from ._numba import threads

HALF = (torch.float16, torch.bfloat16)
BOXES_AT_ONCE = 64  # of the reference, which copies an image for each


def roi_align(
    features: Tensor,  # [N, C, H, W]
    boxes: Tensor,  # [R, 4]
    index: Tensor,  # [R]
    output_size: int,
    scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Tensor:  # [R, C, P, P]
    """Average features in the cells of boxes; differentiable once, with respect to the features.

    Args:
        features: one map an image.
        boxes: ``(x1, y1, x2, y2)`` in pixels of the image.
        index: int64 in ``[0, N)``, image of each box.
        output_size: P, cells along each side.
        scale: pixels of the map in a pixel of the image, e.g. 1/16.
        sampling_ratio: samples n of a cell along each side; 0 adapts them to each box.

    Raises:
        ValueError: if shapes or dtypes do not fit together, a coordinate is not finite, or a box has no image.
    """
    grid = _grid(features, boxes, index, output_size, scale, sampling_ratio)
    wide = features.float() if features.dtype in HALF else features
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        return _average_reference(wide, index, grid, output_size).to(features.dtype)
    return _Average.apply(wide, index, *grid, output_size).to(features.dtype)


def roi_align_reference(
    features: Tensor,
    boxes: Tensor,
    index: Tensor,
    output_size: int,
    scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Tensor:
    """``roi_align`` in plain torch."""
    grid = _grid(features, boxes, index, output_size, scale, sampling_ratio)
    wide = features.float() if features.dtype in HALF else features
    return _average_reference(wide, index, grid, output_size).to(features.dtype)


def _grid(
    features: Tensor, boxes: Tensor, index: Tensor, output_size: int, scale: float, sampling_ratio: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each box begins, the size of its cells (pixels of the map) and their samples, ``[R, 2]`` (y, x)."""
    check_tensor("features", features, (None,) * 4, FLOATS)
    check_tensor("boxes", boxes, (None, 4), FLOATS)
    check_tensor("index", index, (len(boxes),), (torch.int64,))
    check_count("output_size", output_size, 1)
    check_same_device(features=features, boxes=boxes, index=index)
    if not torch.compiler.is_compiling():  # a graph cannot look at values
        check_finite("boxes", boxes)
        check_index("index", index, len(features))
    boxes = boxes.detach().to(torch.float32 if features.dtype in HALF else features.dtype)
    starts = boxes[:, [1, 0]] * scale - 0.5
    cells = (boxes[:, [3, 2]] - boxes[:, [1, 0]]) * scale / output_size
    counts = cells.ceil().clamp(min=0).long()
    return starts, cells, counts if sampling_ratio <= 0 else torch.full_like(counts, sampling_ratio)


def _average_reference(
    features: Tensor, index: Tensor, grid: tuple[Tensor, Tensor, Tensor], output_size: int
) -> Tensor:
    averages = [
        _average_some(features[index[rows]], [each[rows] for each in grid], output_size)
        for rows in torch.arange(len(index), device=index.device).split(BOXES_AT_ONCE)
    ]
    return torch.cat(averages) if averages else features.new_zeros(0, features.shape[1], output_size, output_size)


def _average_some(features: Tensor, grid: Sequence[Tensor], output_size: int) -> Tensor:
    """Return ``[R, C, P, P]`` of one map ``[R, C, H, W]`` a box."""
    starts, cells, counts = grid
    along_y, along_x = (
        _axis_weights(starts[:, axis], cells[:, axis], counts[:, axis], output_size, features.shape[2 + axis])
        for axis in (0, 1)
    )
    return along_y[:, None] @ features @ along_x[:, None].mT


def _axis_weights(starts: Tensor, cells: Tensor, counts: Tensor, output_size: int, size: int) -> Tensor:
    """Return the weight of each pixel along an axis in each cell, ``[R, P, size]``."""
    samples = torch.arange(int(counts.max()) if len(counts) else 0, device=starts.device)
    number = torch.arange(output_size, device=starts.device)[:, None]
    parts = (samples.to(starts) + 0.5) / counts.clamp(min=1)[:, None]
    places = starts[:, None, None] + (number + parts[:, None]) * cells[:, None, None]  # [R, P, n]
    counted = (samples < counts[:, None])[:, None] & (places >= -1) & (places <= size)
    distance = (places.clamp(0, size - 1)[..., None] - torch.arange(size, device=starts.device)).abs()
    hats = (1 - distance).clamp(min=0) * counted[..., None]
    return (hats.sum(dim=2) / counts.clamp(min=1)[:, None, None]).to(starts.dtype)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, index: Tensor, starts: Tensor, cells: Tensor, counts: Tensor, output_size: int
    ) -> Tensor:
        ctx.save_for_backward(index, starts, cells, counts)
        images = features.permute(0, 2, 3, 1).contiguous()
        ctx.shape = images.shape
        out = images.new_zeros(len(index), output_size, output_size, images.shape[3])
        if len(index):
            arrays = [each.detach().contiguous().numpy() for each in (images, index, starts, cells, counts, out)]
            threads.run(kernels.average_cells, threads.even(len(index), out.numel() * 4), *arrays)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        index, starts, cells, counts = ctx.saved_tensors
        to_images = gradients.new_zeros(ctx.shape)
        order = index.argsort(stable=True)
        offsets = torch.searchsorted(index[order].contiguous(), torch.arange(len(to_images) + 1))
        rows = gradients.permute(0, 2, 3, 1).contiguous()
        arrays = [each.contiguous().numpy() for each in (order, offsets, starts, cells, counts, rows, to_images)]
        if len(to_images):
            threads.run(kernels.average_cells_backward, threads.by_load(arrays[1], rows.numel() * 4), *arrays)
        return to_images.permute(0, 3, 1, 2), None, None, None, None, None
