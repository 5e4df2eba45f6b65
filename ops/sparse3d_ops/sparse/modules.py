"""Modules of sparse convolution, with the parameters of spconv 2.x: ``weight`` ``[out, (kz,) ky, kx, in]``, ``bias``.

A ``state_dict`` of spconv 2.x's modules loads unchanged. There is no ``indice_key``: layers on the same sites share one
kernel map by themselves, and an inverse convolution undoes the layer that made its input's sites (``sites.py``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from . import functional as F
from .geometry import Extent, Geometry, spread
from .tensor import SparseTensor


class SparseModule(nn.Module):
    """A module that takes a `SparseTensor`; `SparseSequential` hands the features alone to any other."""


class SparseSequential(nn.Sequential, SparseModule):
    """Modules in sequence; one that is no `SparseModule` (norm, activation, linear) is applied to the features."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Apply the modules in order."""
        for module in self:
            x = module(x) if isinstance(module, SparseModule) else x.replace_features(module(x.features))
        return x


class Convolution(SparseModule):
    """Weight, bias and their initialisation, that of ``torch.nn.Conv3d``."""

    ndim: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Extent, bias: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = spread("kernel_size", kernel_size, self.ndim, 1)
        self.weight = nn.Parameter(torch.empty(out_channels, *self.kernel_size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias from U(-b, b), b = 1 / sqrt(taps x in_channels)."""
        bound = 1 / math.sqrt(max(1, self.in_channels * math.prod(self.kernel_size)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, bias={self.bias is not None}"


class SubMConv(Convolution):
    """Submanifold convolution: the output has the sites of the input.

    Args:
        in_channels: columns of the input.
        out_channels: columns of the output.
        kernel_size: odd taps, one number or one an axis.
        dilation: sites between neighbouring taps.
        bias: whether to add a bias.
        spconv_1x1: how a kernel of one tap reads its weight. spconv 2.x stores ``[out, 1, 1, 1, in]`` and computes
            ``x @ weight.reshape(in, out)``, which is no transpose; checkpoints trained with it need that (True). False
            computes ``x @ weight.reshape(out, in).T``, as every other kernel does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        dilation: Extent = 1,
        bias: bool = True,
        spconv_1x1: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.geometry = Geometry.submanifold(self.ndim, kernel_size, dilation)
        self.dilation = spread("dilation", dilation, self.ndim, 1)
        self.spconv_1x1 = spconv_1x1

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve on the sites of ``x``."""
        weight = _reread(self.weight) if self.spconv_1x1 and self.geometry.is_pointwise else self.weight
        return F.submanifold_conv(x, weight, self.bias, self.dilation)


class SparseConv(Convolution):
    """Sparse convolution: the output has every site that a tap reaches.

    Args:
        in_channels: columns of the input.
        out_channels: columns of the output.
        kernel_size: taps, one number or one an axis, as the next three.
        stride: input sites a step of the output.
        padding: sites before and after the grid.
        dilation: sites between neighbouring taps.
        bias: whether to add a bias.
        spconv_1x1: see `SubMConv`; only a kernel of one tap and stride 1 is read so.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        stride: Extent = 1,
        padding: Extent = 0,
        dilation: Extent = 1,
        bias: bool = True,
        spconv_1x1: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.geometry = Geometry.of(self.ndim, kernel_size, stride, padding, dilation)
        self.stride = spread("stride", stride, self.ndim, 1)
        self.padding = spread("padding", padding, self.ndim, 0)
        self.dilation = spread("dilation", dilation, self.ndim, 1)
        self.spconv_1x1 = spconv_1x1

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve onto the sites that are reached from those of ``x``."""
        weight = _reread(self.weight) if self.spconv_1x1 and self.geometry.is_pointwise else self.weight
        return F.sparse_conv(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        """Return sizes and steps."""
        return f"{super().extra_repr()}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class SparseConvTranspose(Convolution):
    """Transposed convolution, as ``torch.nn.ConvTranspose3d``: the output has every site that a tap reaches.

    Args:
        in_channels: columns of the input.
        out_channels: columns of the output.
        kernel_size: taps, one number or one an axis, as the next four.
        stride: output sites a step of the input.
        padding: sites cut off before and after the grid.
        output_padding: sites added at the end of each axis.
        dilation: sites between neighbouring taps.
        bias: whether to add a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        stride: Extent = 1,
        padding: Extent = 0,
        output_padding: Extent = 0,
        dilation: Extent = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.stride = spread("stride", stride, self.ndim, 1)
        self.padding = spread("padding", padding, self.ndim, 0)
        self.output_padding = spread("output_padding", output_padding, self.ndim, 0)
        self.dilation = spread("dilation", dilation, self.ndim, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve onto the sites that are reached from those of ``x``."""
        steps = (self.stride, self.padding, self.output_padding, self.dilation)
        return F.sparse_conv_transpose(x, self.weight, self.bias, *steps)

    def extra_repr(self) -> str:
        """Return sizes and steps."""
        return f"{super().extra_repr()}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class SparseInverseConv(Convolution):
    """Inverse convolution: back onto the sites that a strided layer started from, by the same kernel map.

    It undoes the last change of sites on the way to its input; to undo an earlier one, follow each by its inverse.

    Args:
        in_channels: columns of the input.
        out_channels: columns of the output.
        kernel_size: that of the layer to be undone.
        bias: whether to add a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Extent, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve onto the sites from which those of ``x`` were made."""
        return F.inverse_conv(x, self.weight, self.bias)


class Pool(SparseModule):
    """Pooling over the active sites under a kernel; arguments as the steps of `SparseConv`.

    Args:
        kernel_size: taps, one number or one an axis, as the next three.
        stride: input sites a step of the output; None for the kernel size.
        padding: sites before and after the grid.
        dilation: sites between neighbouring taps.
    """

    ndim: int

    def __init__(
        self, kernel_size: Extent, stride: Extent | None = None, padding: Extent = 0, dilation: Extent = 1
    ) -> None:
        super().__init__()
        self.kernel_size = spread("kernel_size", kernel_size, self.ndim, 1)
        self.stride = self.kernel_size if stride is None else spread("stride", stride, self.ndim, 1)
        self.padding = spread("padding", padding, self.ndim, 0)
        self.dilation = spread("dilation", dilation, self.ndim, 1)

    def extra_repr(self) -> str:
        """Return the steps."""
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class SparseMaxPool(Pool):
    """Maximum over the active sites under a kernel; arguments as `Pool`."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the maximum under the kernel on every site that it reaches."""
        return F.max_pool(x, self.kernel_size, self.stride, self.padding, self.dilation)


class SparseAvgPool(Pool):
    """Mean over the active sites under a kernel, as in spconv; arguments as `Pool`."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the mean over the active sites under the kernel on every site that it reaches."""
        return F.avg_pool(x, self.kernel_size, self.stride, self.padding, self.dilation)


def _reread(weight: Tensor) -> Tensor:
    """Return the weight that spconv 2.x computes a kernel of one tap with: ``reshape(in, out)``, transposed."""
    out_channels, in_channels = weight.shape[0], weight.shape[-1]
    return weight.reshape(in_channels, out_channels).T.reshape(weight.shape)


class SubMConv2d(SubMConv):
    """Submanifold convolution over ``(y, x)``; see `SubMConv`."""

    ndim = 2


class SubMConv3d(SubMConv):
    """Submanifold convolution over ``(z, y, x)``; see `SubMConv`."""

    ndim = 3


class SparseConv2d(SparseConv):
    """Sparse convolution over ``(y, x)``; see `SparseConv`."""

    ndim = 2


class SparseConv3d(SparseConv):
    """Sparse convolution over ``(z, y, x)``; see `SparseConv`."""

    ndim = 3


class SparseConvTranspose2d(SparseConvTranspose):
    """Transposed sparse convolution over ``(y, x)``; see `SparseConvTranspose`."""

    ndim = 2


class SparseConvTranspose3d(SparseConvTranspose):
    """Transposed sparse convolution over ``(z, y, x)``; see `SparseConvTranspose`."""

    ndim = 3


class SparseInverseConv2d(SparseInverseConv):
    """Inverse sparse convolution over ``(y, x)``; see `SparseInverseConv`."""

    ndim = 2


class SparseInverseConv3d(SparseInverseConv):
    """Inverse sparse convolution over ``(z, y, x)``; see `SparseInverseConv`."""

    ndim = 3


class SparseMaxPool2d(SparseMaxPool):
    """Sparse maximum pooling over ``(y, x)``; see `Pool`."""

    ndim = 2


class SparseMaxPool3d(SparseMaxPool):
    """Sparse maximum pooling over ``(z, y, x)``; see `Pool`."""

    ndim = 3


class SparseAvgPool2d(SparseAvgPool):
    """Sparse mean pooling over ``(y, x)``; see `Pool`."""

    ndim = 2


class SparseAvgPool3d(SparseAvgPool):
    """Sparse mean pooling over ``(z, y, x)``; see `Pool`."""

    ndim = 3
