"""Products of gathered rows and small matrices, summed where they belong, within the processor's registers.

A library's product wants its factors side by side in memory, so rows would be gathered and products added to the output
in passes of their own, which cost more than the products of narrow layers do. Here a row is multiplied where it lies
and its product is added to the output row at once. numba leaves such loops unvectorised, so their body is written in
vectors: the sums of a part of some output rows stay in registers over all input channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 8  # floats of a vector; LLVM cuts it where registers are shorter
VECTORS = 2  # of a part of an output row
PART = VECTORS * LANES  # output channels of a part
ROWS = 6  # parts that are summed together: 12 sums, 2 vectors of the matrix and a value fill 15 of 16 registers

_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FUSED = ("contract",)  # a product and the sum after it are rounded once, where the processor can


def _add_products(rows: int) -> Any:
    """Return an intrinsic that adds ``source @ matrix`` to a part of the output, for so many rows.

    Its arguments are addresses (of source rows, of parts of output rows, of the matrix ``[channels, PART]``),
    and the number of channels, at least 1.
    """
    width = range(VECTORS)

    @intrinsic
    def add_products(typing: Any, sources: Any, targets: Any, matrix: Any, channels: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            addresses = [builder.extract_value(args[0], row) for row in range(rows)]
            into = [_pointer(builder, builder.extract_value(args[1], row), _VECTOR) for row in range(rows)]
            scalars = [_pointer(builder, address, _FLOAT) for address in addresses]
            factors = _pointer(builder, args[2], _VECTOR)

            before = builder.block
            start = [[_load(builder, row, _INT(part)) for part in width] for row in into]
            loop, after = builder.append_basic_block("channels"), builder.append_basic_block("sums")
            builder.branch(loop)
            builder.position_at_end(loop)
            channel = builder.phi(_INT)
            sums = [[builder.phi(_VECTOR) for _ in width] for _ in into]

            place = builder.mul(channel, _INT(VECTORS))
            matrix_row = [_load(builder, factors, builder.add(place, _INT(part))) for part in width]
            values = [_spread(builder, builder.load(builder.gep(row, [channel]))) for row in scalars]
            added = [
                [
                    builder.fadd(total, builder.fmul(value, factor, flags=_FUSED), flags=_FUSED)
                    for total, factor in zip(row, matrix_row, strict=True)
                ]
                for row, value in zip(sums, values, strict=True)
            ]
            following = builder.add(channel, _INT(1))
            builder.cbranch(builder.icmp_signed("<", following, args[3]), loop, after)
            channel.add_incoming(_INT(0), before)
            channel.add_incoming(following, loop)
            for row in range(rows):
                for part in width:
                    sums[row][part].add_incoming(start[row][part], before)
                    sums[row][part].add_incoming(added[row][part], loop)

            builder.position_at_end(after)
            for row in range(rows):
                for part in width:
                    builder.store(added[row][part], builder.gep(into[row], [_INT(part)]), align=4)
            return context.get_dummy_value()

        rows_type = types.UniTuple(types.intp, rows)
        return types.void(rows_type, rows_type, types.intp, types.intp), generate

    return add_products


def _pointer(builder: Any, address: Any, pointee: Any) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


def _load(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.load(builder.gep(pointer, [index]), align=4)


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector of one value."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


_add_many, _add_one = _add_products(ROWS), _add_products(1)


@njit(cache=True, nogil=True)
def multiply_rows(
    block: int,
    source: np.ndarray,  # [N, Cin] float32
    inputs: np.ndarray,  # [P] int32
    outputs: np.ndarray,  # [P] int32, without repetition within a tap
    num_listed: int,  # taps; in those after them, inputs and outputs exchange their roles
    cuts: np.ndarray,  # [blocks + 1, K] int64, first pair of each block of output rows in each tap
    rows: int,  # output rows of a block
    matrices: np.ndarray,  # [K, parts, Cin, PART] float32
    bias: np.ndarray,  # [parts * PART] float32
    out: np.ndarray,  # [M, parts * PART] float32
) -> None:
    """Write a block of ``out``: ``bias``, and the sum of ``source[inputs] @ matrices[tap]``, taps in order."""
    out[block * rows : (block + 1) * rows] = bias
    for tap in range(len(matrices)):
        start, stop = cuts[block, tap], cuts[block + 1, tap]
        if tap < num_listed:
            _add_tap(source, inputs[start:stop], outputs[start:stop], matrices[tap], out)
        else:
            _add_tap(source, outputs[start:stop], inputs[start:stop], matrices[tap], out)


@njit(cache=True, nogil=True)
def _add_tap(
    source: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
    matrices: np.ndarray,  # [parts, Cin, PART]
    out: np.ndarray,
) -> None:
    """Add the products of pairs of a tap."""
    parts, channels, _ = matrices.shape
    first_source, first_out, first_matrix = source.ctypes.data, out.ctypes.data, matrices.ctypes.data
    source_step, out_step, part_step = 4 * channels, 4 * parts * PART, 4 * PART
    for part in range(parts):
        matrix = first_matrix + part * channels * part_step
        begin = first_out + part * part_step
        pair = 0
        while pair + ROWS <= len(inputs):
            here, there = inputs[pair : pair + ROWS], outputs[pair : pair + ROWS]
            _add_many(_addresses(first_source, here, source_step), _addresses(begin, there, out_step), matrix, channels)
            pair += ROWS
        while pair < len(inputs):
            _add_one(
                (first_source + inputs[pair] * source_step,), (begin + outputs[pair] * out_step,), matrix, channels
            )
            pair += 1


@njit(inline="always")
def _addresses(first: int, rows: np.ndarray, step: int) -> tuple[int, int, int, int, int, int]:
    """Return where ``ROWS`` rows begin."""
    return (
        first + rows[0] * step,
        first + rows[1] * step,
        first + rows[2] * step,
        first + rows[3] * step,
        first + rows[4] * step,
        first + rows[5] * step,
    )
