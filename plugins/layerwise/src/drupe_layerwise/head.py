"""The head: where the last segment's hidden rows become logits, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drupe.api import Context, ModelError
from drupe_layerwise.segments import whole
from drupe_layerwise.subgraph import FLOAT_PRODUCTS, Opened, opened_part
from drupe_onnx import Cast, Expression, LazyWeight, RowRange, Transpose, expression_of, ir

FLOAT = 4  # bytes
BEHIND = frozenset({"Cast", "Mul", "Div", "Add", "Sub", "Tanh", "Clip", "Reshape", "Identity", "Concat"})
"""What may stand between the product with the head's matrix and the logits: scaling, a bias, a soft cap; and what puts
the parts of a vocabulary together, which are multiplied with the same rows."""


IN_PARTS = frozenset({"Concat", "Reshape"})
"""Of these, what depends on how many tokens the vocabulary has."""


def hidden_rows(logits: ir.Value) -> ir.Value:
    """The activations that the head's matrix is multiplied with: [batch, sequence, hidden].

    Behind them each token is on its own, so they may be run a few at a time.
    """
    value = whole(logits)
    while (node := value.producer()) is not None:
        rows = node.inputs[0]
        if rows is None:
            break
        if node.op_type not in BEHIND:
            return whole(rows)
        value = whole(next((each for each in node.inputs if each is not None and each.producer()), rows))
    raise ModelError(f"no product with a matrix makes the graph's '{logits.name}'")


@dataclass(frozen=True)
class SlicedHead:
    """A head whose matrix is run in ranges of the vocabulary, since it is too large to be held as floats.

    A runtime makes floats of the whole matrix, and packs them: eight bytes a weight, and 5 GB for 150,000 tokens of
    4,096 values.

    part: what makes `result` of `hidden`. axis: the matrix's, along which the vocabulary is. size: tokens of a range.
    """

    part: ir.Model
    matrix: ir.Value
    whole: Expression
    axis: int
    hidden: ir.Value
    result: ir.Value
    size: int

    @property
    def vocabulary(self) -> int:
        return self.whole.shape[self.axis]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[first, last) of each range."""
        return [(start, min(start + self.size, self.vocabulary)) for start in range(0, self.vocabulary, self.size)]

    @contextmanager
    def opened(self, first: int, last: int, home: Path, context: Context) -> Iterator[Opened]:
        """What makes the logits of one range of hidden rows."""
        narrow = _narrowed(self.whole, self.axis, first, last)
        assert narrow is not None
        self.matrix.const_value = LazyWeight(self.matrix.name, narrow)
        self.matrix.shape = ir.Shape(narrow.shape)
        with opened_part(self.part, [self.hidden], [self.result], home, context) as part:
            yield part


def sliced_head(part: ir.Model, hidden: ir.Value, result: ir.Value, limit: int) -> SlicedHead | None:
    """The head in ranges of at most `limit` bytes of floats; None where it is small, or more than one such product.

    part: what makes `result` of `hidden`, cut out of the graph; it is changed when a range is opened.
    """
    operators = [node.op_type for node in part.graph]
    if sum(name in FLOAT_PRODUCTS for name in operators) != 1 or not IN_PARTS.isdisjoint(operators):
        return None
    held = {value: expression_of(value) for value in part.graph.initializers.values()}
    large = [value for value, each in held.items() if each is not None and FLOAT * math.prod(each.shape) > limit]
    axis = _axis_of_outputs(large[0]) if len(large) == 1 else None
    if axis is None:
        return None
    matrix = large[0]
    whole_matrix = held.pop(matrix)
    assert whole_matrix is not None
    vocabulary, width = whole_matrix.shape[axis], whole_matrix.shape[1 - axis]
    others = any(each is not None and vocabulary in each.shape for each in held.values())
    if others or _narrowed(whole_matrix, axis, 0, 1) is None:
        return None
    return SlicedHead(part, matrix, whole_matrix, axis, hidden, result, max(1, limit // (FLOAT * width)))


def _axis_of_outputs(matrix: ir.Value) -> int | None:
    """The axis of a matrix that a product's outputs lie along; None where it is for anything else."""
    uses = list(matrix.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Cast":
        uses = list(uses[0].node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type not in FLOAT_PRODUCTS or uses[0].idx != 1:
        return None
    transposed = uses[0].node.attributes.get("transB")
    return 0 if transposed is not None and transposed.as_int() else 1


def _narrowed(matrix: Expression, axis: int, first: int, last: int) -> Expression | None:
    """[first, last) of a matrix along an axis, for columns where they are rows of what it was made of."""
    if axis == 0:
        return RowRange(matrix, first, last)
    if isinstance(matrix, Transpose):
        return Transpose(RowRange(matrix.source, first, last))
    if isinstance(matrix, Cast) and (inner := _narrowed(matrix.source, axis, first, last)) is not None:
        return Cast(inner, matrix.dtype)
    return None
