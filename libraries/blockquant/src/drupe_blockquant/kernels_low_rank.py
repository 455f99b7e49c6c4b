"""The inner loop of merging an adapter, compiled by numba: rows + left x right, rounded to the type of the rows.

A block of the result stays in registers while the inner products are added up, so that each value is read and written
once. numba's own loops cannot say that: the block is written in LLVM's vectors.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined,call-arg,call-overload"

from collections.abc import Callable
from itertools import chain

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from drupe_blockquant.kernel_calls import PRODUCT_PANEL as PANEL
from drupe_blockquant.kernel_calls import PRODUCT_ROWS as ROWS

_FEATURES = llvm.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8  # of a vector
CONVERTS = bool(_FEATURES.get("avx512bf16"))
"""Whether the processor rounds to bfloat16 by one instruction, which takes values below 1e-38 for zero."""
VECTORS = 2  # of a row in a block: with ROWS rows, as many as the registers of AVX2 hold
COLUMNS = VECTORS * LANES

FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), LANES)
SIZE = ir.IntType(64)
HALF = ir.Constant(WORDS, [16] * LANES)  # the bits of a float32 that bfloat16 does not have


class _BrainFloat(ir.Type):
    """bfloat16, which llvmlite has no type for."""

    def _to_string(self):
        return "bfloat"


BRAIN_FLOATS = ir.VectorType(_BrainFloat(), LANES)

_strict = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # as `kernels`


@intrinsic
def _add_to_block(_, rows, left, panel, out, row, column, at):
    """out = rows + left x panel for ROWS rows from `row` on and COLUMNS columns from `column` on.

    rows, out: bit patterns of bfloat16, or float32. panel: COLUMNS values of `right` for each rank, from `at` on.
    """

    def generate(context, builder, signature, values):
        held, factors, columns, made = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:4], values[:4], strict=True)
        )
        row, column, at = values[4:]
        k, ranks = (cgutils.unpack_tuple(builder, each.shape)[1] for each in (held, factors))
        lines = [builder.add(row, SIZE(i)) for i in range(ROWS)]
        starts = [builder.gep(factors.data, [builder.mul(line, ranks)]) for line in lines]
        sums = _inner_products(builder, starts, builder.gep(columns.data, [at]), ranks)
        for line, parts in zip(lines, sums, strict=True):
            for i, part in enumerate(parts):
                place = builder.add(builder.mul(line, k), builder.add(column, SIZE(i * LANES)))
                _add(builder, builder.gep(held.data, [place]), part, builder.gep(made.data, [place]))
        return context.get_dummy_value()

    return types.void(rows, left, panel, out, row, column, at), generate


@intrinsic
def _copy(_, right, panel, rank, column, at):
    """panel[at : at + COLUMNS] = right[rank, column : column + COLUMNS]"""

    def generate(context, builder, signature, values):
        source, target = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:2], values[:2], strict=True)
        )
        rank, column, at = values[2:]
        _, k = cgutils.unpack_tuple(builder, source.shape)
        first = builder.add(builder.mul(rank, k), column)
        for i in range(VECTORS):
            part = _load(builder, builder.gep(source.data, [builder.add(first, SIZE(i * LANES))]), FLOATS)
            _store(builder, part, builder.gep(target.data, [builder.add(at, SIZE(i * LANES))]))
        return context.get_dummy_value()

    return types.void(right, panel, rank, column, at), generate


def _inner_products(builder, factors, panel, ranks):
    """The block as vectors, row by row. factors: where those of each row begin."""
    zero = ir.Constant(FLOATS, [0.0] * LANES)
    before = builder.block
    loop, after = builder.append_basic_block("ranks"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    rank = builder.phi(SIZE)
    sums = [[builder.phi(FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]
    first = builder.gep(panel, [builder.mul(rank, SIZE(COLUMNS))])
    columns = [_load(builder, builder.gep(first, [SIZE(i * LANES)]), FLOATS) for i in range(VECTORS)]
    repeated = [_repeated(builder, builder.load(builder.gep(start, [rank]))) for start in factors]
    added = [
        [_contracted(builder, part, factor, column) for part, column in zip(parts, columns, strict=True)]
        for parts, factor in zip(sums, repeated, strict=True)
    ]
    following = builder.add(rank, SIZE(1))
    builder.cbranch(builder.icmp_signed("<", following, ranks), loop, after)
    rank.add_incoming(SIZE(0), before)
    rank.add_incoming(following, loop)
    for part, result in zip(chain(*sums), chain(*added), strict=True):
        part.add_incoming(zero, before)
        part.add_incoming(result, loop)
    builder.position_at_end(after)
    return added


def _contracted(builder, value, one, other):
    """value + one * other, rounded once where the processor can."""
    return builder.fadd(value, builder.fmul(one, other, flags=("contract",)), flags=("contract",))


def _add(builder, held, part, made):
    """made = held + part, rounded to nearest, ties to even."""
    if held.type.pointee == ir.FloatType():
        _store(builder, builder.fadd(_load(builder, held, FLOATS), part), made)
        return
    wide = builder.shl(builder.zext(_load(builder, held, HALVES), WORDS), HALF)
    _store(builder, _rounded(builder, builder.fadd(builder.bitcast(wide, FLOATS), part)), made)


def _rounded(builder, value):
    """The bit patterns of values in bfloat16."""
    if CONVERTS:
        return builder.bitcast(builder.fptrunc(value, BRAIN_FLOATS), HALVES)
    bits = builder.bitcast(value, WORDS)
    odd = builder.and_(builder.lshr(bits, HALF), ir.Constant(WORDS, [1] * LANES))
    bits = builder.add(builder.add(bits, ir.Constant(WORDS, [0x7FFF] * LANES)), odd)
    return builder.trunc(builder.lshr(bits, HALF), HALVES)


def _load(builder, pointer, vector):
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=_size(vector))


def _store(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=_size(value.type))


def _size(vector):
    """Bytes of an element, which is how vectors in memory are aligned."""
    return 2 if vector == HALVES else 4


def _repeated(builder, value):
    """A vector of one value."""
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, ir.Constant(FLOATS, ir.Undefined), ir.Constant(WORDS, [0] * LANES))


@_strict
def _add_product(rows, left, right, panel, out):
    """The last blocks of rows and columns begin earlier where they would be incomplete; what overlaps is made twice."""
    n, k = rows.shape
    ranks = right.shape[0]
    for start in range(0, k, PANEL):
        blocks = (min(PANEL, k - start) + COLUMNS - 1) // COLUMNS
        for block in range(blocks):
            column = min(start + block * COLUMNS, k - COLUMNS)
            for rank in range(ranks):
                _copy(right, panel, rank, column, (block * ranks + rank) * COLUMNS)
        for first in range(0, n, ROWS):
            row = min(first, n - ROWS)
            for block in range(blocks):
                column = min(start + block * COLUMNS, k - COLUMNS)
                _add_to_block(rows, left, panel, out, row, column, block * ranks * COLUMNS)


def _add_product_16(rows, left, right, panel, out, n, k, ranks):
    _add_product(
        carray(rows, (n, k), np.uint16), carray(left, (n, ranks), np.float32), carray(right, (ranks, k), np.float32),
        carray(panel, (ranks * PANEL,), np.float32), carray(out, (n, k), np.uint16),
    )  # fmt: skip
    return 0


def _add_product_32(rows, left, right, panel, out, n, k, ranks):
    _add_product(
        carray(rows, (n, k), np.float32), carray(left, (n, ranks), np.float32), carray(right, (ranks, k), np.float32),
        carray(panel, (ranks * PANEL,), np.float32), carray(out, (n, k), np.float32),
    )  # fmt: skip
    return 0


ENTRY_POINTS: dict[str, Callable[..., int]] = {
    "add_product_16": _add_product_16,
    "add_product_32": _add_product_32,
}
