"""Deformable convolution: the taps of a kernel are displaced, and may be weighted, at every output pixel.

    out[n, o, p] = Σ_k Σ_c  weight[o, c, k] · mask[n, g, k, p] · bilinear(x[n, c], q + offset[n, g, k, p])
    q = p · stride - padding + k · dilation

g is the deformation group of channel c. A pixel outside of the image is zero, so a tap up to one pixel beyond the
border still sees a part of it. Without a mask this is version 1, with one version 2. Half precision is gathered in
float32.

Source: Deformable Convolutional Networks (Dai et al., ICCV 2017), equation 2; Deformable ConvNets v2 (Zhu et al., CVPR
2019), equation 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import FLOATS, check_same_device, check_tensor
from ._numba import deform_conv as kernels
from ._numba import threads

HALF = (torch.float16, torch.bfloat16)


def deform_conv2d(
    x: Tensor,  # [N, C, H, W]
    offsets: Tensor,  # [N, 2 G K, h, w]
    weight: Tensor,  # [O, C / groups, kh, kw]
    bias: Tensor | None = None,  # [O]
    mask: Tensor | None = None,  # [N, G K, h, w]
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:  # [N, O, h, w]
    """Convolve with displaced taps; differentiable once, with respect to all tensors.

    Args:
        x: images.
        offsets: displacements in pixels, ``(dy, dx)`` of each of the K = kh kw taps of each of G deformation groups.
        weight: the kernel.
        bias: added at the end.
        mask: weight of each tap; None is 1 everywhere.
        stride: of output pixels.
        padding: zeros around the image.
        dilation: distance of undisplaced taps.
        groups: groups of input and output channels.

    Raises:
        ValueError: if shapes or dtypes do not fit together.
    """
    return _convolve(_gather, x, offsets, weight, bias, mask, stride, padding, dilation, groups)


def deform_conv2d_reference(
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """``deform_conv2d`` in plain torch."""
    return _convolve(_gather_reference, x, offsets, weight, bias, mask, stride, padding, dilation, groups)


def _convolve(
    gather: Any,
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> Tensor:
    deform_groups, size = _check(x, offsets, weight, mask, stride, padding, dilation, groups)
    places = _tap_places((weight.shape[2], weight.shape[3]), size, stride, padding, dilation, x.device)  # [P, K, 2]
    shape = (len(x), deform_groups, places.shape[1])
    displaced = offsets.float() if offsets.dtype in HALF else offsets
    displaced = displaced.reshape(*shape, 2, len(places)).permute(0, 4, 1, 2, 3)
    positions = places[:, None].to(displaced) + displaced  # [N, P, G, K, 2]
    if mask is None:
        shares = torch.ones_like(positions[..., 0])
    else:
        shares = mask.to(positions.dtype).reshape(*shape, len(places)).permute(0, 3, 1, 2)
    columns = gather(x.to(positions.dtype), positions, shares)  # [N, P, K, C]
    by_group = columns.flatten(0, 1).unflatten(2, (groups, -1)).movedim(2, 0).flatten(2)  # [groups, N P, K C / groups]
    kernel = weight.flatten(2).unflatten(0, (groups, -1)).permute(0, 3, 2, 1).flatten(1, 2)
    out = torch.bmm(by_group.to(kernel.dtype), kernel).movedim(0, 1).flatten(1)  # [N P, O]
    out = out.unflatten(0, (len(x), *size)).permute(0, 3, 1, 2)
    return (out if bias is None else out + bias[:, None, None]).to(x.dtype)


def _tap_places(
    kernel: tuple[int, int], size: tuple[int, int], stride: int, padding: int, dilation: int, device: torch.device
) -> Tensor:
    """Return where undisplaced taps look, ``[P, K, 2]`` (y, x) in pixels."""
    outputs, taps = (
        torch.cartesian_prod(*(torch.arange(length, device=device) for length in lengths)).view(-1, 2)
        for lengths in (size, kernel)
    )
    return outputs[:, None] * stride - padding + taps * dilation


def _gather(images: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Return what the taps read, ``[N, P, K, C]``, of images ``[N, C, H, W]``."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return _gather_reference(images, positions, mask)
    return _Gather.apply(images, positions, mask)


def _gather_reference(images: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    number, channels, height, width = images.shape
    places, groups, taps = positions.shape[1:4]
    grid = (2 * positions.flip(-1) + 1) / positions.new_tensor([width, height]) - 1
    parts = images.reshape(number * groups, channels // groups, height, width)
    seen = F.grid_sample(parts, grid.transpose(1, 2).flatten(0, 1), padding_mode="zeros", align_corners=False)
    seen = seen.view(number, groups, channels // groups, places, taps) * mask.permute(0, 2, 1, 3)[:, :, None]
    return seen.flatten(1, 2).permute(0, 2, 3, 1)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        images = images.permute(0, 2, 3, 1).contiguous()
        positions, mask = positions.contiguous(), mask.contiguous()
        ctx.save_for_backward(images, positions, mask)
        number, places, _, taps = mask.shape
        out = images.new_zeros(number, places, taps, images.shape[3])
        rows = number * places
        arrays = [each.detach().numpy() for each in (images, positions, mask, out)]
        threads.run(kernels.gather_taps, threads.even(rows, out.numel() * 4) if rows else [0, 0], *arrays)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, ...]:
        images, positions, mask = ctx.saved_tensors
        results = [torch.zeros_like(each) for each in (images, positions, mask)]
        arrays = [each.numpy() for each in (images, positions, mask, gradients.contiguous(), *results)]
        bounds = threads.even(len(images), gradients.numel() * 8) if len(images) else [0, 0]
        threads.run(kernels.gather_taps_backward, bounds, *arrays)
        return results[0].permute(0, 3, 1, 2), results[1], results[2]


def _check(
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> tuple[int, tuple[int, int]]:
    """Return the number of deformation groups and the size of the output."""
    check_tensor("x", x, (None,) * 4, FLOATS)
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise ValueError(f"x: {channels} channels are not divisible by {groups} groups")
    check_tensor("weight", weight, (None, channels // groups, None, None), FLOATS)
    taps = weight.shape[2] * weight.shape[3]
    height, width = (
        (side + 2 * padding - dilation * (length - 1) - 1) // stride + 1
        for side, length in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    deform_groups = max(offsets.shape[1] // (2 * taps), 1)
    check_tensor("offsets", offsets, (len(x), 2 * taps * deform_groups, height, width), FLOATS)
    if channels % deform_groups:
        raise ValueError(f"x: {channels} channels are not divisible by {deform_groups} deformation groups")
    if mask is not None:
        check_tensor("mask", mask, (len(x), taps * deform_groups, height, width), FLOATS)
    check_same_device(x=x, offsets=offsets, weight=weight, mask=mask)
    return deform_groups, (height, width)
