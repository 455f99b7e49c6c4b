"""LazyWeight: an expression as a tensor of an onnx_ir graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe_onnx import ir
from drupe_onnx.expressions.elementwise import as_type
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.sources import Array, ExternalTensor
from drupe_onnx.files import Files

LIMIT = 1 << 30
"""Bytes above which a weight is not turned into an array; tests set it small."""


class MaterializedTooMuch(AssertionError):
    """Code asked for the values of a large lazy weight: a defect in that code, not in the model."""


class LazyWeight(ir.LazyTensor):
    """A tensor whose values are an expression. Asking for values computes them each time, up to LIMIT bytes."""

    __slots__ = ("expression",)

    def __init__(self, name: str | None, expression: Expression) -> None:
        super().__init__(self._materialize, expression.dtype, ir.Shape(expression.shape), name=name)
        self.expression = expression

    def __repr__(self) -> str:
        return f"LazyWeight({self.name!r}, {self.dtype.name}{list(self.expression.shape)}, {self.expression!r})"

    def _materialize(self) -> ir.Tensor[Any]:
        if self.nbytes > LIMIT:
            raise MaterializedTooMuch(
                f"'{self.name}' has {self.nbytes} bytes, over the limit of {LIMIT}: use its expression, not its values"
            )
        with Files() as files:
            return ir.Tensor(self.expression.value(files), dtype=self.dtype, shape=self.shape, name=self.name)


def initializer(name: str, expression: Expression) -> ir.Value:
    """A graph value with the expression as its constant, type and shape set."""
    return ir.val(name, const_value=LazyWeight(name, expression))


def expression_of(value: ir.Value) -> Expression | None:
    """The expression of a value's constant, for any class of tensor; None for inputs and strings."""
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return None
    if isinstance(tensor, LazyWeight):
        return tensor.expression
    if isinstance(tensor, ir.ExternalTensor):
        return ExternalTensor(Path(tensor.path), tensor.dtype, tuple(tensor.shape.numpy()), tensor.offset or 0)
    return Array(tensor.numpy())


def constant_of(value: ir.Value | None) -> Expression | None:
    """The expression of an initializer, also through a Cast; None for values that are computed or inputs."""
    if value is None:
        return None
    if value.is_initializer():
        return expression_of(value)
    cast = value.producer()
    if cast is None or cast.op_type != "Cast":
        return None
    stored = constant_of(cast.inputs[0])
    return stored and as_type(stored, ir.DataType(cast.attributes["to"].as_int()))
