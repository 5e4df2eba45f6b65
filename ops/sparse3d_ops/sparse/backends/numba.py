"""The CPU backend: numba finds the kernel maps and multiplies; torch multiplies what is not float32.

Output rows are cut into blocks that fit a core's cache. A block goes through the taps in order and adds the products of
its pairs to the output rows: in float32 at once (`_numba/row_products.py`), in other dtypes by gathering inputs,
multiplying and adding. One thread computes a block and no other one writes there, so there is no race, and the result
has the same bits on any number of threads: the cut depends on sizes alone. The weight's gradient is cut into fixed runs
of pairs of one tap, whose products are added in order.

Sums over taps and runs are in float32 (float64 for float64). Half-precision rows are multiplied in half precision
where the processor can, which rounds each product of a tap once, else, and in the weight's gradient, in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..._numba import kernel_map as map_kernels
from ..._numba import row_products
from ..._numba import sparse_conv as kernels
from ..._numba.voxelize import MAX_BITMAP_CELLS
from ...coords import num_cells
from ..geometry import Geometry, Triple
from ..kernel_map import KernelMap
from .mirrored_map import MirroredMap
from .reference import Reference
from .workers import one_thread, share

BLOCK_BYTES = 3 << 20  # inputs, products and outputs of a block; measured, along with the rows
MIN_ROWS, MAX_ROWS = 256, 8192  # output rows of a block
RUN = 8192  # pairs of one product of the weight's gradient
DIRECT_NUMBERS = 1 << 15  # numbers of the output rows of a block without buffers; measured
STEPS_A_PRODUCT = 16  # products of numbers that take as long as a step


class Numba(Reference):
    """Kernels of a CPU."""

    name = "numba"

    def why_not(self, device: torch.device) -> str | None:
        """Return None for a CPU."""
        return None if device.type == "cpu" else "it runs on a CPU"

    def coarse_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        if num_cells(shape, batch_size) > MAX_BITMAP_CELLS:
            return super().coarse_keys(coords, geometry, shape, batch_size)
        return _reach(coords, geometry, shape, batch_size, True)

    def fine_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        if num_cells(shape, batch_size) > MAX_BITMAP_CELLS:
            return super().fine_keys(coords, geometry, shape, batch_size)
        return _reach(coords, geometry, shape, batch_size, False)

    def match(
        self, fine_keys: Tensor, fine_shape: Triple, coarse: Tensor, geometry: Geometry, is_submanifold: bool
    ) -> KernelMap:
        """See `Reference`. Half of a submanifold map is the mirror of the other half."""
        padding = geometry.padding[2]
        taps = geometry.volume // 2 + 1 if is_submanifold else geometry.volume
        lines, places = map_kernels.lay_out(fine_keys.numpy(), fine_shape[2], padding)
        sizes = int(lines[-1]) + 1 if len(lines) else 0, len(lines) * (fine_shape[2] + padding) + padding
        if max(sizes) > MAX_BITMAP_CELLS:
            return super().match(fine_keys, fine_shape, coarse, geometry, is_submanifold)
        bits = map_kernels.rank(lines, sizes[0]), map_kernels.rank(places, sizes[1])
        grid = np.array(fine_shape), _steps(geometry)
        pairs = map_kernels.find_pairs(coarse.contiguous().numpy(), *bits, *grid, taps)
        inputs, outputs, offsets = map(torch.from_numpy, pairs)
        listed = KernelMap(inputs, outputs, offsets, len(fine_keys), len(coarse), geometry)
        return MirroredMap(listed) if is_submanifold else listed

    def convolve(self, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> Tensor:
        """See `Reference`; differentiable once."""
        return _Convolve.apply(features, weight, bias, kernel_map)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _accumulate(features, weight.permute(1, 2, 0), bias, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        wants_features, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_features = of_weight = of_bias = None
        if wants_features:
            of_features = _accumulate(gradient, weight.transpose(0, 1), None, ctx.kernel_map.transpose())
        if wants_weight:
            of_weight = _weight_gradient(features, gradient, ctx.kernel_map).to(weight.dtype)
        if wants_bias:
            with one_thread():
                of_bias = gradient.sum(0, dtype=_wide(gradient)).to(ctx.bias_dtype)
        return of_features, of_weight, of_bias, None


def _accumulate(
    features: Tensor,  # [N, Cin]
    weights: Tensor,  # [K, Cin, Cout]
    bias: Tensor | None,  # [Cout]
    kernel_map: KernelMap,
) -> Tensor:  # [M, Cout]
    """Return the convolution, block after block."""
    if not kernel_map.num_outputs:
        return features.new_empty(0, weights.shape[2])
    in_registers = features.dtype == weights.dtype == torch.float32
    job = (_InRegisters if in_registers else _Gathering)(features, weights, bias, kernel_map)
    work = kernel_map.num_pairs * features.shape[1] * weights.shape[2] // STEPS_A_PRODUCT
    share(job.count, work, lambda: job.worker())
    return job.result()


class _InRegisters:
    """What the threads of one convolution in float32 share. Output channels are filled up to whole parts."""

    def __init__(self, features: Tensor, weights: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> None:
        taps, in_channels, self.channels = weights.shape
        filling = (0, -self.channels % row_products.PART)
        filled = TF.pad(weights.detach(), filling).view(taps, in_channels, -1, row_products.PART)
        start = torch.zeros(self.channels) if bias is None else bias.detach().float()
        self.out = torch.empty(kernel_map.num_outputs, self.channels + filling[1])
        rows = max(MIN_ROWS, DIRECT_NUMBERS // max(in_channels, self.channels))
        self.count = -(-kernel_map.num_outputs // rows)
        listed = kernel_map.half if isinstance(kernel_map, MirroredMap) else kernel_map
        self.arguments = (
            features.detach().contiguous().numpy(),
            listed.inputs.numpy(),
            listed.outputs.numpy(),
            listed.num_taps,
            _cut_taps(listed, taps, rows, self.count),
            rows,
            filled.transpose(1, 2).contiguous().numpy(),
            TF.pad(start, filling).numpy(),
            self.out.numpy(),
        )

    def worker(self) -> Any:
        """Return a function that computes a block."""
        return lambda block: row_products.multiply_rows(block, *self.arguments)

    def result(self) -> Tensor:
        """Return the rows without what their channels were filled up with."""
        return self.out[:, : self.channels].contiguous()


def _cut_taps(listed: KernelMap, taps: int, rows: int, blocks: int) -> np.ndarray:
    """Return where each block of output rows begins in each tap ``[blocks + 1, taps]``, mirrored taps included."""
    inputs, outputs, offsets = listed.inputs.numpy(), listed.outputs.numpy(), listed.offsets.numpy()
    cuts = kernels.cut_taps(outputs, offsets, rows, blocks)
    if taps == listed.num_taps:
        return cuts
    mirrored = kernels.cut_taps(inputs, offsets[:-1], rows, blocks)
    return np.concatenate([cuts, mirrored[:, ::-1]], axis=1)


class _Gathering:
    """What the threads of one convolution in another dtype share."""

    def __init__(self, features: Tensor, weights: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> None:
        _, self.in_channels, self.out_channels = weights.shape
        self.wide = _wide(features)
        self.factor = features.dtype if _multiplies(features.dtype) else self.wide
        self.features = features.detach().contiguous()
        self.weights = weights.detach().to(self.factor).contiguous()
        self.start = torch.zeros((), dtype=self.wide) if bias is None else bias.detach().to(self.wide)
        self.out = torch.empty(kernel_map.num_outputs, self.out_channels, dtype=features.dtype)
        self.rows = _block_rows(self.in_channels, self.out_channels)
        self.count = -(-kernel_map.num_outputs // self.rows)
        self.inputs, self.outputs = kernel_map.inputs.numpy(), kernel_map.outputs.numpy()
        self.cuts = kernels.cut_taps(self.outputs, kernel_map.offsets.numpy(), self.rows, self.count).tolist()
        self.centre = kernel_map.num_taps // 2 if kernel_map.is_submanifold else -1

    def worker(self) -> Any:
        """Return a function that computes a block, with buffers of its own."""
        near = _Gathered(self.features, self.rows, self.factor)
        products = self.weights.new_empty(self.rows, self.out_channels)
        terms = _buffer(products, self.wide)
        sums = None if self.out.dtype == self.wide else torch.empty_like(terms)
        added = terms.numpy()

        def compute(block: int) -> None:
            base = block * self.rows
            own = slice(base, base + self.rows)
            out = self.out[own]
            total = out if sums is None else sums[: len(out)]
            total.copy_(self.start.expand_as(total))
            total_array = total.numpy()
            for tap, (start, stop) in enumerate(zip(self.cuts[block], self.cuts[block + 1], strict=True)):
                if start == stop:
                    continue
                is_centre = tap == self.centre  # whose inputs are the rows of the block themselves
                rows = near.convert(self.features[own]) if is_centre else near.take(self.inputs[start:stop])
                product = torch.mm(rows, self.weights[tap], out=products[: stop - start])
                _convert(product, terms)
                kernels.scatter_add(added, self.outputs[start:stop], base, total_array)
            if sums is not None:
                out.copy_(total)

        return compute

    def result(self) -> Tensor:
        """Return the rows."""
        return self.out


class _Gathered:
    """A buffer for rows of a tensor, in the dtype that they are multiplied in."""

    def __init__(self, source: Tensor, size: int, dtype: torch.dtype) -> None:
        self.source = as_array(source)
        self.rows = source.new_empty(size, source.shape[1])
        self.target = as_array(self.rows)
        self.converted = _buffer(self.rows, dtype)

    def take(self, index: np.ndarray) -> Tensor:
        """Return the rows ``source[index]``."""
        kernels.gather(self.source, index, self.target)
        return self.convert(self.rows[: len(index)])

    def convert(self, rows: Tensor) -> Tensor:
        """Return rows in the dtype of products."""
        return _convert(rows, self.converted)


def _buffer(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return where ``_convert`` puts rows of another dtype: the rows themselves where it is theirs."""
    return rows if rows.dtype == dtype else torch.empty_like(rows, dtype=dtype)


def _convert(rows: Tensor, buffer: Tensor) -> Tensor:
    """Return rows in the dtype of a buffer, in which they are put unless they have it."""
    return rows if rows.dtype == buffer.dtype else buffer[: len(rows)].copy_(rows)


def _multiplies(dtype: torch.dtype) -> bool:
    """Return whether the processor has fast products of a dtype."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


def _weight_gradient(features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the gradient ``[Cout, K, Cin]`` of the weight, in the dtype of sums."""
    features, gradient = features.detach().contiguous(), gradient.detach().contiguous()
    in_channels, out_channels = features.shape[1], gradient.shape[1]
    inputs, outputs = kernel_map.inputs.numpy(), kernel_map.outputs.numpy()
    runs = [
        (tap, start, min(start + RUN, stop))
        for tap, (first, stop) in enumerate(kernel_map.tap_ranges())
        for start in range(first, stop, RUN)
    ]
    partial = torch.empty(len(runs), out_channels, in_channels, dtype=_wide(features))

    def worker() -> Any:
        left = _Gathered(gradient, RUN, partial.dtype)
        right = _Gathered(features, RUN, partial.dtype)

        def compute(run: int) -> None:
            _, start, stop = runs[run]
            torch.mm(left.take(outputs[start:stop]).T, right.take(inputs[start:stop]), out=partial[run])

        return compute

    share(len(runs), kernel_map.num_pairs * in_channels, worker)
    total = torch.zeros(out_channels, kernel_map.num_taps, in_channels, dtype=partial.dtype)
    for run, (tap, _, _) in enumerate(runs):
        total[:, tap] += partial[run]
    return total


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's memory as an array; half precision as integers of its bits, for copying only."""
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def _block_rows(in_channels: int, out_channels: int) -> int:
    """Return the number of output rows of a block."""
    fitting = BLOCK_BYTES // (4 * (in_channels + 2 * out_channels))
    return min(max(MIN_ROWS, 1 << max(0, fitting.bit_length() - 1)), MAX_ROWS)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _reach(coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int, to_coarse: bool) -> Tensor:
    words = np.zeros((num_cells(shape, batch_size) + 63) >> 6, np.uint64)
    sites = coords.contiguous().numpy()
    starts = map_kernels.line_starts(sites)
    return torch.from_numpy(map_kernels.reach(sites, starts, np.array(shape), _steps(geometry), to_coarse, words))


def _steps(geometry: Geometry) -> np.ndarray:
    return np.array([geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation])
