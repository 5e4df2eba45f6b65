"""The geometry of a sparse convolution, once.

Along each axis, a tap t of the kernel joins the fine site f and the coarse site c when

    f = stride * c + dilation * t - padding,       0 <= t < kernel_size

A convolution takes fine sites to coarse ones, a transposed convolution takes coarse sites to fine ones; the tap, and so
the weight, is the same. A submanifold convolution has stride 1, padding dilation * (kernel_size // 2), and the same
sites on both sides. Taps are numbered row-major over (z, y, x), the order of the weight ``[out, kz, ky, kx, in]``.

Two dimensions are three with one layer: kernel_size, stride and dilation 1 and padding 0 along z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Triple = tuple[int, int, int]
Extent = int | Sequence[int]  # one number for all axes, or one an axis


@dataclass(frozen=True)
class Geometry:
    """Kernel of a convolution along ``(z, y, x)``; build it with ``Geometry.of``.

    Args:
        kernel_size: taps along each axis.
        stride: fine sites a coarse step.
        padding: fine sites by which the first coarse site's first tap lies before the grid.
        dilation: fine sites between neighbouring taps.
    """

    kernel_size: Triple
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)

    @classmethod
    def of(
        cls, ndim: int, kernel_size: Extent, stride: Extent = 1, padding: Extent = 0, dilation: Extent = 1
    ) -> Geometry:
        """Return the geometry of a convolution in ``ndim`` (2 or 3) dimensions.

        Raises:
            ValueError: if a number of values is wrong, or a value is below 1 (padding: below 0).
        """
        return cls(
            lift(spread("kernel_size", kernel_size, ndim, 1), 1),
            lift(spread("stride", stride, ndim, 1), 1),
            lift(spread("padding", padding, ndim, 0), 0),
            lift(spread("dilation", dilation, ndim, 1), 1),
        )

    @classmethod
    def submanifold(cls, ndim: int, kernel_size: Extent, dilation: Extent = 1) -> Geometry:
        """Return the geometry of a convolution whose output sites are its input sites.

        Raises:
            ValueError: as ``of``, and if a kernel size is even: such a kernel has no centre.
        """
        size = lift(spread("kernel_size", kernel_size, ndim, 1), 1)
        if any(extent % 2 == 0 for extent in size):
            raise ValueError(f"kernel_size: a submanifold convolution needs odd sizes, got {kernel_size}")
        steps = lift(spread("dilation", dilation, ndim, 1), 1)
        padding = tuple(step * (extent // 2) for step, extent in zip(steps, size, strict=True))
        return cls(size, (1, 1, 1), padding, steps)  # type: ignore[arg-type]

    @property
    def volume(self) -> int:
        """Number of taps K."""
        return math.prod(self.kernel_size)

    @property
    def is_pointwise(self) -> bool:
        """Whether each site is joined with itself alone."""
        return self.volume == 1 and self.stride == (1, 1, 1) and self.padding == (0, 0, 0)

    def taps(self) -> Tensor:
        """Return the taps ``[K, 3]`` int64 ``(z, y, x)`` in the order of the weight."""
        return torch.tensor(list(product(*map(range, self.kernel_size))), dtype=torch.int64)

    def coarse_shape(self, fine: Triple) -> Triple:
        """Return the extents of a convolution's output, the formula of ``torch.nn.Conv3d``.

        Raises:
            ValueError: if the kernel does not fit into the padded input.
        """
        axes = zip(fine, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        shape = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        if min(shape) < 1:
            raise ValueError(f"{self} does not fit into spatial_shape {fine}: the output would be {shape}")
        return shape  # type: ignore[return-value]

    def fine_shape(self, coarse: Triple, output_padding: Triple) -> Triple:
        """Return the extents of a transposed convolution's output, the formula of ``torch.nn.ConvTranspose3d``.

        Raises:
            ValueError: if nothing is left of the output.
        """
        axes = zip(coarse, self.kernel_size, self.stride, self.padding, self.dilation, output_padding, strict=True)
        shape = tuple((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in axes)
        if min(shape) < 1:
            raise ValueError(f"{self} of spatial_shape {coarse}: the output would be {shape}")
        return shape  # type: ignore[return-value]


def spread(name: str, value: Extent, ndim: int, least: int) -> tuple[int, ...]:
    """Return one value an axis.

    Raises:
        ValueError: if there are not ``ndim`` values, or one is below ``least``.
    """
    values = (value,) * ndim if isinstance(value, int) else tuple(int(part) for part in value)
    if len(values) != ndim or min(values) < least:
        raise ValueError(f"{name}: expected one or {ndim} integers of at least {least}, got {value}")
    return values


def lift(values: tuple[int, ...], layer: int) -> Triple:
    """Return values of two or three axes as three, with ``layer`` along the missing z."""
    return (layer,) * (3 - len(values)) + values  # type: ignore[return-value]
