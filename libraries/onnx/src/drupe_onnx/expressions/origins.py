"""The sources of an expression, and the name by which a user knows it."""

from __future__ import annotations

from collections.abc import Iterator

from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.producers import Producer
from drupe_onnx.expressions.sources import Source


def sources(expression: Expression | Producer) -> Iterator[Expression]:
    """The sources of an expression: tensors that are read or held. One that is used twice comes twice."""
    if isinstance(expression, Expression) and not expression.inputs:
        yield expression
    for each in expression.inputs:
        yield from sources(each)


def name_of(expression: Expression | Producer) -> str:
    """The name for messages: that of the first source that has a name."""
    named = [each.label for each in sources(expression) if isinstance(each, Source)]
    return named[0] if named else "a computed tensor"
