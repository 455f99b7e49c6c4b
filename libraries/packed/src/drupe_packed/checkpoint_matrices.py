"""From the tensors of a checkpoint to its matrices: finding the tensors of each, and checking their shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NoReturn

import numpy as np

from drupe.api import ModelError, Record, counted
from drupe_onnx import Array, Expression, Files, Reshape, Source, element_name, ir
from drupe_packed.layouts import AwqMatrix, GptqMatrix, MlxMatrix, PackQuantizedMatrix
from drupe_packed.mxfp4 import BLOCK_BYTES, Mxfp4Values
from drupe_packed.packed_matrix import PackedMatrix
from drupe_packed.packing import (
    AWQ,
    BITS,
    GPTQ,
    GPTQ_P,
    GPTQ_V2,
    MARKS,
    MLX,
    MXFP4,
    PACK_QUANTIZED,
    PARTS,
    SCALED,
    WORD,
    Packing,
    Rule,
)
from drupe_packed.scaled import EXPONENTS, VALUES, ScaledValues
from drupe_packed.scaled import SCALES as SCALES_OF_VALUES

SCALE_ENDS = ("_scale_inv", "_scale")
SCALES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT)
_AGAIN = "download config.json and weights again, from one revision; or use the checkpoint that it was quantized from"


def matrices(tensors: Mapping[str, Expression], packing: Packing) -> dict[str, Expression]:
    """`tensors`, with a matrix "X.weight" instead of the parts of each packed module X.

    Raises ModelError for parts that are missing, or that do not fit together or to config.json. The only values that
    are read are the orders of columns.
    """
    if packing.layout == MXFP4:
        return _floats_of_four_bits(tensors)
    if packing.layout == SCALED:
        return _scaled(tensors, packing.rules[-1])
    suffix = f".{MARKS[packing.layout]}"
    found: dict[str, Expression] = {}
    modules = [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]
    taken: set[str] = set()
    for module in modules:
        rule = packing.rule(module)
        if rule is None:
            _refuse(tensors[module + suffix], f"config.json has no quantization scheme for the module '{module}'")
        parts = _Parts(module, tensors, taken)
        found[f"{module}.weight"] = _READERS[packing.layout](parts, rule)
    return {**{name: tensor for name, tensor in tensors.items() if name not in taken}, **found}


def _floats_of_four_bits(tensors: Mapping[str, Expression]) -> dict[str, Expression]:
    """`tensors`, with the values "X" instead of "X_blocks" and "X_scales"."""
    blocks, scales = (f"_{part}" for part in PARTS[MXFP4])
    found = dict(tensors)
    for name in [name for name in tensors if name.endswith(blocks)]:
        module = name.removesuffix(blocks)
        levels, exponents = found.pop(name), found.pop(module + scales, None)
        if exponents is None:
            raise ModelError(f"the checkpoint lacks the tensor '{module}{scales}'", cure=_AGAIN)
        fits = levels.shape == (*exponents.shape, BLOCK_BYTES) and len(levels.shape) > 2
        if not fits or {levels.dtype, exponents.dtype} != {ir.DataType.UINT8}:
            _refuse(levels, f"'{name}' is {_shown(levels)}, which does not fit scales of {_shown(exponents)}")
        found[module] = Mxfp4Values(levels, exponents)
    return found


def _scaled(tensors: Mapping[str, Expression], rule: Rule) -> dict[str, Expression]:
    """`tensors`, with the values of each that has a scale beside it: "X_scale_inv", or "X_scale"."""
    found = dict(tensors)
    for name in [name for name, tensor in tensors.items() if tensor.dtype in VALUES and len(tensor.shape) in (2, 3)]:
        scale = next((name + end for end in SCALE_ENDS if name + end in tensors), None)
        if scale is None:
            raise ModelError(f"the checkpoint lacks the scale of the tensor '{name}'", cure=_AGAIN)
        found[name] = _with_scales(name, tensors[name], found.pop(scale), rule)
    return found


def _with_scales(name: str, values: Expression, scales: Expression, rule: Rule) -> ScaledValues:
    """The values of one tensor. Its scales may be one number, one for each row, or one for each block."""
    *several, n, k = values.shape
    size = math.prod(scales.shape)
    count = math.prod(several)
    high, wide = rule.rows or n, rule.group_size or k
    shapes = {
        count: ((1, 1), (n, k)),
        count * n: ((n, 1), (1, k)),
        count * -(-n // high) * -(-k // wide): ((-(-n // high), -(-k // wide)), (high, wide)),
    }
    if size not in shapes or scales.dtype not in (*SCALES_OF_VALUES, *EXPONENTS):
        _refuse(values, f"'{name}' is {_shown(values)}, which does not fit scales of {_shown(scales)}")
    shape, block = shapes[size]
    return ScaledValues(values, Reshape(scales, (*several, *shape)), block)


class _Parts(Record):
    """The tensors of one module. `taken` collects the names of those that are used."""

    module: str
    tensors: Mapping[str, Expression]
    taken: set[str]

    def get(self, part: str) -> Expression | None:
        name = f"{self.module}.{part}"
        if name not in self.tensors:
            return None
        self.taken.add(name)
        return self.tensors[name]

    def matrix(self, part: str, dtypes: tuple[ir.DataType, ...] = (ir.DataType.INT32,)) -> Expression:
        found = self.get(part)
        if found is None:
            raise ModelError(f"the quantized module '{self.module}' lacks the tensor '{part}'", cure=_AGAIN)
        wanted = " or ".join(map(element_name, dtypes))
        if found.dtype not in dtypes or len(found.shape) != 2 or 0 in found.shape:
            _refuse(found, f"'{self.module}.{part}' must be a matrix of {wanted}, but is {_shown(found)}")
        return found

    def expect(self, part: str, tensor: Expression, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape:
            _refuse(tensor, f"'{self.module}.{part}' has the shape {list(tensor.shape)} instead of {list(shape)}")


def _levels_in(words: int, tensor: Expression, name: str, line: str, rule: Rule) -> int:
    """How many levels so many words hold, in a row or a column of a tensor. Raises ModelError where bits are left."""
    levels, rest = divmod(words * WORD, rule.bits)
    if rest:
        _refuse(
            tensor, f"{name} has {counted(words, 'word')} in a {line}, which do not hold levels of {rule.bits} bits"
        )
    return levels


def _gptq(parts: _Parts, rule: Rule, *, less_one: bool, planar: bool = False) -> PackedMatrix:
    qweight, qzeros = parts.matrix("qweight"), parts.matrix("qzeros")
    scales = parts.matrix("scales", SCALES)
    words, n = qweight.shape
    k = _levels_in(words, qweight, f"'{parts.module}.qweight'", "column", rule)
    if planar and rule.bits not in BITS and (k % WORD or n % WORD):
        _refuse(qweight, f"'{parts.module}.qweight' has {k} inputs and {n} outputs; planes hold multiples of {WORD}")
    group_size, groups = _groups(rule, k)
    parts.expect("scales", scales, (groups, n))
    parts.expect("qzeros", qzeros, (groups, -(-n * rule.bits // WORD)))
    order = _order(parts, rule, "g_idx", k, group_size)
    return GptqMatrix(qweight, qzeros, scales, rule.bits, group_size, rule.symmetric, less_one, order, planar)


def _awq(parts: _Parts, rule: Rule) -> PackedMatrix:
    qweight, qzeros = parts.matrix("qweight"), parts.matrix("qzeros")
    scales = parts.matrix("scales", SCALES)
    k, words = qweight.shape
    group_size, groups = _groups(rule, k)
    if k % 2:
        _refuse(qweight, f"'{parts.module}.qweight' has an odd number of inputs: {k}")
    n = _levels_in(words, qweight, f"'{parts.module}.qweight'", "row", rule)
    parts.expect("scales", scales, (groups, n))
    parts.expect("qzeros", qzeros, (groups, words))
    return AwqMatrix(qweight, qzeros, scales, rule.bits, group_size)


def _pack_quantized(parts: _Parts, rule: Rule) -> PackedMatrix:
    words, scales = parts.matrix("weight_packed"), parts.matrix("weight_scale", SCALES)
    n, k = _stored_shape(parts)
    group_size, groups = _groups(rule, k)
    parts.expect("weight_packed", words, (n, -(-k * rule.bits // WORD)))
    parts.expect("weight_scale", scales, (n, groups))
    zeros = None if rule.symmetric else parts.matrix("weight_zero_point")
    if zeros is not None:
        parts.expect("weight_zero_point", zeros, (-(-n * rule.bits // WORD), groups))
    order = _order(parts, rule, "weight_g_idx", k, group_size)
    return PackQuantizedMatrix(words, scales, zeros, (n, k), rule.bits, group_size, order)


def _mlx(parts: _Parts, rule: Rule) -> PackedMatrix:
    words = parts.matrix("weight", (ir.DataType.UINT32,))
    scales, biases = parts.matrix("scales", SCALES), parts.matrix("biases", SCALES)
    n, width = words.shape
    k = _levels_in(width, words, f"'{parts.module}.weight'", "row", rule)
    group_size, groups = _groups(rule, k)
    parts.expect("scales", scales, (n, groups))
    parts.expect("biases", biases, (n, groups))
    return MlxMatrix(words, scales, biases, rule.bits, group_size)


def _stored_shape(parts: _Parts) -> tuple[int, int]:
    """The two numbers in `weight_shape`."""
    held = parts.get("weight_shape")
    if held is None:
        raise ModelError(f"the quantized module '{parts.module}' lacks the tensor 'weight_shape'", cure=_AGAIN)
    if held.shape != (2,) or held.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        _refuse(held, f"'{parts.module}.weight_shape' must be two whole numbers, but is {_shown(held)}")
    n, k = (int(length) for length in _value(held))
    if n < 1 or k < 1:
        _refuse(held, f"'{parts.module}.weight_shape' says [{n}, {k}]")
    return n, k


def _groups(rule: Rule, k: int) -> tuple[int, int]:
    """The number of values in a group, and of groups in a row of k values."""
    size = k if rule.group_size is None else min(rule.group_size, k)
    return size, -(-k // size)


def _order(parts: _Parts, rule: Rule, name: str, k: int, group_size: int) -> Array | None:
    """The order that puts the columns of each group together; None where they are together already.

    `g_idx` int32 [K] is the group of each column. It is small, and is read here because the graph depends on it.
    """
    index = parts.get(name)
    if index is None:
        return None
    if index.shape != (k,) or index.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        _refuse(index, f"'{parts.module}.{name}' must be {k} whole numbers, but is {_shown(index)}")
    plain = np.arange(k) // group_size
    group_of = _value(index)
    if np.array_equal(group_of, plain):
        return None
    order = np.argsort(group_of, kind="stable")
    if not np.array_equal(group_of[order], plain):
        _refuse(index, f"'{parts.module}.{name}' does not put {group_size} columns into each group")
    if not rule.reordered:
        _refuse(index, f"'{parts.module}.{name}' reorders columns, but config.json says that the checkpoint does not")
    return Array(order)


def _value(expression: Expression) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Files() as files:
        return np.array(expression.value(files), np.int64)


def _shown(tensor: Expression) -> str:
    return f"{element_name(tensor.dtype)} {list(tensor.shape)}"


def _refuse(tensor: Expression, what: str) -> NoReturn:
    raise ModelError(what, where=tensor.path if isinstance(tensor, Source) else None, cure=_AGAIN)


_READERS: Mapping[str, Callable[[_Parts, Rule], PackedMatrix]] = {
    GPTQ: lambda parts, rule: _gptq(parts, rule, less_one=True),
    GPTQ_V2: lambda parts, rule: _gptq(parts, rule, less_one=False),
    GPTQ_P: lambda parts, rule: _gptq(parts, rule, less_one=False, planar=True),
    AWQ: _awq,
    MLX: _mlx,
    PACK_QUANTIZED: _pack_quantized,
}
