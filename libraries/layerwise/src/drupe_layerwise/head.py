"""The head: the last segment's product that turns hidden rows into logits, token by token."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from drupe.api import ModelError, Record
from drupe_layerwise.segments import whole
from drupe_layerwise.weights import FLOAT_PRODUCTS, made, take_matrix_out
from drupe_onnx import Access, Expression, Files, RowRange, constant_of, expression_of, ir, remove_unused

FLOAT = 4  # bytes
BEHIND = frozenset({"Cast", "Mul", "Div", "Add", "Sub", "Tanh", "Clip", "Reshape", "Identity", "Concat"})
"""Operators that may stand between the product with the head's matrix and the logits: scaling, a bias, a soft cap, and
joining the parts of a vocabulary, which are multiplied with the same rows."""


IN_PARTS = frozenset({"Concat", "Reshape"})
"""Those of BEHIND whose result depends on the number of tokens in the vocabulary."""


def hidden_rows(logits: ir.Value) -> ir.Value:
    """The activations that the head's matrix is multiplied with: [batch, sequence, hidden].

    The rest of the graph treats each token separately, so the rows may be run a few at a time.
    """
    value = whole(logits)
    while (node := value.producer()) is not None:
        rows = node.inputs[0]
        if rows is None:
            break
        if node.op_type not in BEHIND:
            return whole(rows)
        value = whole(next((each for each in node.inputs if each is not None and each.producer()), rows))
    raise ModelError(f"the graph's '{logits.name}' does not come from a product with a matrix")


class SlicedHead(Record):
    """A head that is run in ranges of the vocabulary, because its matrix is too large to be held as floats: 2.5 GB for
    150,000 tokens of 4,096 values.

    part: the sub-graph that computes `result` from `hidden` and from its input `name`, a range of `matrix`. axis: the
    axis of the matrix that the vocabulary lies along. size: tokens in a range.
    """

    part: ir.Model
    name: str
    matrix: Expression
    axis: int
    hidden: ir.Value
    result: ir.Value
    size: int

    @property
    def vocabulary(self) -> int:
        return self.matrix.shape[self.axis]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[first, last) of each range."""
        return [(start, min(start + self.size, self.vocabulary)) for start in range(0, self.vocabulary, self.size)]

    def range(self, first: int, last: int, threads: int) -> NDArray[Any]:
        """The floats of a range of the matrix."""
        if self.axis == 0:
            return made(RowRange(self.matrix, first, last), threads)
        with Files() as files:
            return self.matrix.columns(first, last, files)


def sliced_head(part: ir.Model, hidden: ir.Value, result: ir.Value, limit: int) -> SlicedHead | None:
    """The head in ranges of at most `limit` bytes of floats; None where it is small, or is not one such product.

    part: the sub-graph that computes `result` from `hidden`. Where the head is sliced, its matrix becomes an input.
    """
    products = [node for node in part.graph if node.op_type in FLOAT_PRODUCTS]
    if len(products) != 1 or not IN_PARTS.isdisjoint(node.op_type for node in part.graph):
        return None
    large = constant_of(products[0].inputs[1])
    if large is None or len(large.shape) != 2 or FLOAT * large.size <= limit or large.access == Access.WHOLE:
        return None
    vocabulary = large.shape[_axis(products[0])]
    others = [each for value in part.graph.initializers.values() if (each := expression_of(value)) is not None]
    if any(vocabulary in each.shape for each in others if each.size != large.size):
        return None  # a bias, for example, would have to be sliced as well
    if (taken := take_matrix_out(products[0], part.graph)) is None:
        return None
    value, matrix = taken
    remove_unused(part)
    axis = _axis(products[0])
    value.shape = ir.Shape([None if each == axis else size for each, size in enumerate(matrix.shape)])
    size = max(1, limit // (FLOAT * matrix.shape[1 - axis]))
    return SlicedHead(part, value.name or "", matrix, axis, hidden, result, size)


def _axis(product: ir.Node) -> int:
    """The axis of a product's matrix that its outputs lie along."""
    transposed = product.attributes.get("transB")
    return 0 if transposed is not None and transposed.as_int() else 1
