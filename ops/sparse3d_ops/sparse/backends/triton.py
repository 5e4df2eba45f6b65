"""Our own GPU backend: kernel maps and implicit GEMM in Triton.

Kernels and the reasons for their form are in ``_triton``. float16, bfloat16 and float32 are multiplied by tensor cores
with sums in float32: float32 as three TF32 products (errors like float32's own), or as one where torch is told to
(``torch.backends.cuda.matmul.allow_tf32``). float64 is left to the definition. Results have the same bits every time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...coords import num_cells
from ..geometry import Geometry, Triple
from ..kernel_map import KernelMap
from .reference import Reference
from .table_map import TableMap

if find_spec("triton") is not None:  # otherwise why_not says so
    from ..._triton import convolution as kernels
    from ..._triton.launch import launch, parts
    from . import triton_maps as maps

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUN = 4096  # pairs of one sum of the weight's gradient
FEW_ROWS = 40_000  # tiles of 128 rows are fewer than two for each multiprocessor of a large GPU


class Triton(Reference):
    """Kernels of a GPU, or of Triton's interpreter."""

    name = "triton"

    def why_not(self, device: torch.device) -> str | None:
        """Return None for CUDA with triton installed, and for a CPU under Triton's interpreter."""
        if find_spec("triton") is None:
            return "triton is not installed"
        if device.type == "cpu" and not INTERPRETED:
            return "it runs on CUDA, and on a CPU only where TRITON_INTERPRET=1 is set from the start"
        return None if device.type in ("cpu", "cuda") else "it runs on CUDA"

    def coarse_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        cells = num_cells(shape, batch_size)
        if not maps.fits_bitmap(cells):
            return super().coarse_keys(coords, geometry, shape, batch_size)
        return maps.reach(coords, geometry, shape, cells, True)

    def fine_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        cells = num_cells(shape, batch_size)
        if not maps.fits_bitmap(cells):
            return super().fine_keys(coords, geometry, shape, batch_size)
        return maps.reach(coords, geometry, shape, cells, False)

    def match(
        self, fine_keys: Tensor, fine_shape: Triple, coarse: Tensor, geometry: Geometry, is_submanifold: bool
    ) -> KernelMap:
        """See `Reference`."""
        return TableMap(maps.find(fine_keys, fine_shape, coarse, geometry), len(fine_keys), geometry, is_submanifold)

    def convolve(self, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> Tensor:
        """See `Reference`; differentiable once."""
        if features.dtype == torch.float64:
            return super().convolve(features, weight, bias, kernel_map)
        return _Convolve.apply(features, weight, bias, kernel_map)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _multiply(features, weight.contiguous(), bias, kernel_map, mirror=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        wants_features, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_features = of_weight = of_bias = None
        if wants_features:
            of_features = _feature_gradient(gradient, weight, ctx.kernel_map)
        if wants_weight:
            of_weight = _weight_gradient(features, gradient, ctx.kernel_map).to(weight.dtype)
        if wants_bias:
            of_bias = gradient.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return of_features, of_weight, of_bias, None


def _feature_gradient(gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the convolution of a gradient with the transposed weight.

    A submanifold map is its own transpose with the taps in opposite order, so it needs no second table.
    """
    back = weight.contiguous().transpose(0, 2)
    if kernel_map.is_submanifold:
        return _multiply(gradient, back, None, kernel_map, mirror=True)
    transposed = kernel_map.form("transpose", kernel_map.transpose)
    return _multiply(gradient, back, None, transposed, mirror=False)


@dataclass(frozen=True)
class Tile:
    """Sizes of a program of ``implicit_gemm``; not tuned: the values of a design made without a GPU at hand."""

    rows: int
    columns: int
    channels: int
    warps: int
    stages: int

    @classmethod
    def of(cls, num_rows: int, in_channels: int, out_channels: int, dtype: torch.dtype) -> Tile:
        """Return the sizes for a layer; ``channels`` depends on its widths alone, as the bits of a sum do on it."""
        if dtype == torch.float32:
            return cls(64, _power(out_channels, 64), _power(in_channels, 32), 4, 3)
        columns, channels = _power(out_channels, 256), _power(in_channels, 64)
        if columns == 256:
            return cls(128, columns, channels, 8, 3)
        if columns == 128 and num_rows < FEW_ROWS:
            return cls(64, columns, channels, 4, 4)
        return cls(128, columns, channels, 8 if columns == 128 else 4, 4)


def _power(channels: int, most: int) -> int:
    """Return the least power of two, from 16 to ``most``, that covers the channels, or ``most``."""
    return min(most, max(16, 1 << (channels - 1).bit_length()))


def _multiply(features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, mirror: bool) -> Tensor:
    """Return the convolution by a weight ``[Cout, K, Cin]`` of any strides."""
    out_channels, taps, in_channels = weight.shape
    out = features.new_empty(kernel_map.num_outputs, out_channels)
    plan = maps.schedule(kernel_map)
    tile = Tile.of(len(out), in_channels, out_channels, features.dtype)
    lanes = len(plan.order)
    launch(
        kernels.implicit_gemm,
        (lanes // tile.rows, parts(out_channels, tile.columns)),
        features.contiguous(),
        weight,
        weight if bias is None else bias.contiguous(),
        out,
        plan.table,
        plan.order,
        plan.tiles(tile.rows),
        lanes,
        *weight.stride(),
        IN=in_channels,
        OUT=out_channels,
        TAPS=taps,
        MIRROR=mirror,
        HAS_BIAS=bias is not None,
        WIDEN=_widens(features),
        PRECISION=_precision(),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        CHANNELS=tile.channels,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def _weight_gradient(features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the gradient ``[Cout, K, Cin]`` float32 of the weight."""
    out_channels, in_channels = gradient.shape[1], features.shape[1]
    runs, firsts = kernel_map.form("runs", lambda: _runs(kernel_map, features.device))
    sums = features.new_empty(len(runs), out_channels, in_channels, dtype=torch.float32)
    rows, columns = _power(out_channels, 64), _power(in_channels, 64)
    launch(
        kernels.weight_gradient,
        (len(runs), parts(out_channels, rows), parts(in_channels, columns)),
        features.contiguous(),
        gradient.contiguous(),
        kernel_map.inputs,
        kernel_map.outputs,
        runs,
        sums,
        IN=in_channels,
        OUT=out_channels,
        WIDEN=_widens(features),
        PRECISION=_precision(),
        PAIRS=32 if features.dtype == torch.float32 else 64,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=4,
        num_stages=3,
    )
    total = sums.new_empty(kernel_map.num_taps, out_channels, in_channels)
    size = out_channels * in_channels
    launch(kernels.add_runs, (len(total), parts(size, 1024)), sums, firsts, total, size, BLOCK=1024)
    return total.transpose(0, 1)


def _runs(kernel_map: KernelMap, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cut each tap's pairs: return first and last + 1 pair of runs ``[R, 2]`` and the taps' first runs ``[K + 1]``."""
    bounds, firsts = [], [0]
    for first, stop in kernel_map.tap_ranges():
        bounds += [(start, min(start + RUN, stop)) for start in range(first, stop, RUN)]
        firsts.append(len(bounds))
    runs = torch.tensor(bounds, dtype=torch.int64).reshape(-1, 2)
    return runs.to(device), torch.tensor(firsts, dtype=torch.int32).to(device)


def _widens(features: Tensor) -> bool:
    """Return whether the interpreter would multiply this dtype wrongly."""
    return INTERPRETED and features.dtype == torch.bfloat16


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
