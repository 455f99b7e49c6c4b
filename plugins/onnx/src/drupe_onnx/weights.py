"""LazyWeight: an expression as a tensor of an onnx_ir graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe_onnx import ir
from drupe_onnx.expressions import Array, Expression, ExternalTensor
from drupe_onnx.files import Files

LIMIT = 1 << 30
"""Bytes above which a weight is not turned into an array; tests set it small."""


class MaterializedTooMuch(AssertionError):
    """Something asked for the values of a large lazy weight: a defect in what asked, not in the model."""


class LazyWeight(ir.LazyTensor):
    """A tensor whose values are an expression. Asking for the values computes them, up to LIMIT bytes, each time."""

    __slots__ = ("expression",)

    def __init__(self, name: str | None, expression: Expression) -> None:
        super().__init__(self._materialize, expression.dtype, ir.Shape(expression.shape), name=name)
        self.expression = expression

    def __repr__(self) -> str:
        return f"LazyWeight({self.name!r}, {self.dtype.name}{list(self.expression.shape)}, {self.expression!r})"

    def _materialize(self) -> ir.Tensor[Any]:
        if self.nbytes > LIMIT:
            raise MaterializedTooMuch(
                f"'{self.name}' is {self.nbytes} bytes, and only its expression was to be passed on (limit: {LIMIT})"
            )
        with Files() as files:
            return ir.Tensor(self.expression.value(files), dtype=self.dtype, shape=self.shape, name=self.name)


def initializer(name: str, expression: Expression) -> ir.Value:
    """A graph value with the expression as its constant, type and shape set."""
    weight = LazyWeight(name, expression)
    return ir.Value(name=name, type=ir.TensorType(weight.dtype), shape=weight.shape, const_value=weight)


def expression_of(value: ir.Value) -> Expression | None:
    """The expression of a value's constant, of whatever tensor class; None for what has none (inputs, strings)."""
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return None
    if isinstance(tensor, LazyWeight):
        return tensor.expression
    if isinstance(tensor, ir.ExternalTensor):
        return ExternalTensor(Path(tensor.path), tensor.dtype, tuple(tensor.shape.numpy()), tensor.offset or 0)
    return Array(tensor.numpy())
