"""Sparse convolution and pooling as functions of a `SparseTensor`.

    out[c] = bias + Σ_t W[t] in[f],     f = stride * c + dilation * t - padding,     over taps t of active f

(see ``geometry.py``; transposed and inverse convolutions exchange the roles of f and c). Weights are
``[out, (kz,) ky, kx, in]``, spconv 2.x's layout. Sums are accumulated in float32 (float64 in float64) in the order of
the taps. Under ``torch.autocast`` features and weights are cast to its dtype, as in a dense convolution.

Papers: submanifold convolution, Graham et al., arXiv 1711.10275, section 3; sparse convolution, Yan et al., SECOND.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import FLOATS, check_same_device, check_tensor
from ..segment import Segments, segment_gather, segment_max, segment_mean
from .backends import backend_for
from .geometry import Extent, Geometry, lift, spread
from .kernel_map import KernelMap
from .sites import Sites
from .tensor import SparseTensor


def submanifold_conv(x: SparseTensor, weight: Tensor, bias: Tensor | None = None, dilation: Extent = 1) -> SparseTensor:
    """Convolve on the sites of ``x`` alone; the output has the same sites.

    Args:
        x: C_in channels.
        weight: ``[C_out, (kz,) ky, kx, C_in]``, odd kernel sizes.
        bias: ``[C_out]`` or None.
        dilation: sites between neighbouring taps, one or one an axis.

    Raises:
        ValueError: if a size is even, or weight, bias and features do not fit together.
    """
    geometry = Geometry.submanifold(x.sites.ndim, _kernel_size(x, weight, bias), dilation)
    if geometry.is_pointwise:
        return _pointwise(x, weight, bias)
    return _convolve(x, weight, bias, x.sites.submanifold_map(geometry), x.sites)


def sparse_conv(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extent = 1,
    padding: Extent = 0,
    dilation: Extent = 1,
) -> SparseTensor:
    """Convolve; the output has every site that a tap reaches from a site of ``x``.

    Args:
        x: C_in channels.
        weight: ``[C_out, (kz,) ky, kx, C_in]``.
        bias: ``[C_out]`` or None; it is added on the sites of the output only.
        stride: see ``geometry.py``; one or one an axis, as are ``padding`` and ``dilation``.
        padding: sites before and after the grid.
        dilation: sites between neighbouring taps.

    Raises:
        ValueError: if the kernel does not fit into the padded grid, or weight, bias and features do not fit together.
    """
    geometry = Geometry.of(x.sites.ndim, _kernel_size(x, weight, bias), stride, padding, dilation)
    if geometry.is_pointwise:
        return _pointwise(x, weight, bias)
    sites = x.sites.coarsen(geometry)
    return _convolve(x, weight, bias, _origin_map(sites), sites)


def sparse_conv_transpose(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extent = 1,
    padding: Extent = 0,
    output_padding: Extent = 0,
    dilation: Extent = 1,
) -> SparseTensor:
    """Convolve transposed, as ``torch.nn.ConvTranspose3d``; the output has every site that a tap reaches.

    Arguments and errors as ``sparse_conv``; ``output_padding`` adds sites at the end of each axis.
    """
    ndim = x.sites.ndim
    geometry = Geometry.of(ndim, _kernel_size(x, weight, bias), stride, padding, dilation)
    sites = x.sites.refine(geometry, lift(spread("output_padding", output_padding, ndim, 0), 0))
    return _convolve(x, weight, bias, _origin_map(sites), sites)


def inverse_conv(x: SparseTensor, weight: Tensor, bias: Tensor | None = None) -> SparseTensor:
    """Undo the change of sites that made those of ``x``: walk its kernel map back, each pair under its own tap.

    Args:
        x: a tensor on sites that ``sparse_conv``, a transposed convolution or a pooling made.
        weight: ``[C_out, (kz,) ky, kx, C_in]`` with the kernel size of that layer.
        bias: ``[C_out]`` or None.

    Returns:
        A tensor on the very sites that the layer started from.

    Raises:
        ValueError: if the sites of ``x`` were made otherwise, or the kernel size is another.
    """
    origin = x.sites.origin
    size = lift(_kernel_size(x, weight, bias), 1)
    if origin is None:
        raise ValueError(f"inverse_conv: {x.sites} were not made by a strided layer, so there is no map to walk back")
    if size != origin.kernel_map.geometry.kernel_size:
        raise ValueError(
            f"inverse_conv: expected the kernel size {origin.kernel_map.geometry.kernel_size} (z, y, x) of the layer "
            f"that made {x.sites}, got {size}"
        )
    return _convolve(x, weight, bias, origin.kernel_map.transpose(), origin.parent)


def max_pool(
    x: SparseTensor, kernel_size: Extent, stride: Extent = 1, padding: Extent = 0, dilation: Extent = 1
) -> SparseTensor:
    """Return the maximum over the active sites under the kernel; sites, arguments and errors as ``sparse_conv``.

    The gradient goes to the lowest row that attains the maximum.
    """
    sites, members, groups = _pool_groups(x, kernel_size, stride, padding, dilation)
    return SparseTensor.on(sites, segment_max(segment_gather(x.features, members), groups))


def avg_pool(
    x: SparseTensor, kernel_size: Extent, stride: Extent = 1, padding: Extent = 0, dilation: Extent = 1
) -> SparseTensor:
    """Return the mean over the active sites under the kernel, as spconv; the rest as ``sparse_conv``."""
    sites, members, groups = _pool_groups(x, kernel_size, stride, padding, dilation)
    return SparseTensor.on(sites, segment_mean(segment_gather(x.features, members), groups))


def _pool_groups(
    x: SparseTensor, kernel_size: Extent, stride: Extent, padding: Extent, dilation: Extent
) -> tuple[Sites, Segments, Segments]:
    """Return output sites, and the pairs of the map grouped by input and by output, in ascending order of inputs."""
    sites = x.sites.coarsen(Geometry.of(x.sites.ndim, kernel_size, stride, padding, dilation))
    kernel_map = _origin_map(sites)
    return sites, *kernel_map.form("groups", lambda: _group(kernel_map))


def _group(kernel_map: KernelMap) -> tuple[Segments, Segments]:
    by_input = Segments.from_index(kernel_map.inputs.long(), kernel_map.num_inputs)
    return by_input, Segments.from_index(kernel_map.outputs.long(), kernel_map.num_outputs)


def _origin_map(sites: Sites) -> KernelMap:
    assert sites.origin is not None  # of sites that coarsen or refine made
    return sites.origin.kernel_map


def _kernel_size(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    """Return the kernel size of a weight, after checking that it fits."""
    taps = (None,) * x.sites.ndim
    check_tensor("weight", weight, (None, *taps, x.num_channels), FLOATS)
    if bias is not None:
        check_tensor("bias", bias, (len(weight),), FLOATS)
    check_same_device(features=x.features, weight=weight, bias=bias)
    return tuple(weight.shape[1:-1])


def _pointwise(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> SparseTensor:
    return x.replace_features(torch.nn.functional.linear(x.features, weight.flatten(1), bias))


def _convolve(
    x: SparseTensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, sites: Sites
) -> SparseTensor:
    features, taps = x.features, weight.flatten(1, -2)
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features, taps = features.to(dtype), taps.to(dtype)
    if features.dtype != taps.dtype:
        raise ValueError(f"expected features and weight of one dtype, got {features.dtype} and {taps.dtype}")
    with torch.autocast(device, enabled=False):
        out = backend_for(features.device).convolve(features, taps, bias, kernel_map)
    return SparseTensor.on(sites, out)
