"""Linear: a product with a matrix of the checkpoint, and its bias where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.switched import Place, switched

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import Expression, ir


class Adapter(Record):
    """A product through few values that is added to another product: outward(inward(x)), as in LoRA."""

    inward: Linear
    outward: Linear


class Linear(Record):
    """x times a matrix, plus a bias.

    name: of the matrix in the graph, without ".weight". rows: its rows in the checkpoint. bias: None without one.
    clip: values are limited to this size, as OLMo's queries, keys and values are. factor: on the result. matrix: the
    name of a matrix that several products use; `name` is that of the nodes then. adapter: added to the result.
    """

    name: str
    rows: Rows
    bias: Rows | None = None
    clip: float | None = None
    factor: float = 1.0
    matrix: str | None = None
    adapter: Adapter | None = None

    @property
    def size(self) -> int:
        """How many values the result has."""
        return self.rows.count

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for rows in (self.rows, self.bias):
            if rows is not None:
                yield rows.tensor, rows.shape
        if self.adapter is not None:
            yield from self.adapter.inward.tensors()
            yield from self.adapter.outward.tensors()


def linear(graph: GraphBuilder, part: Linear, x: ir.Value, role: str) -> ir.Value:
    """The product for x [batch, sequence, K]: [batch, sequence, N]."""
    out = fused(graph, [part], part.name, x, role)
    if part.adapter is None:
        return out
    more = linear(graph, part.adapter.outward, linear(graph, part.adapter.inward, x, role), role)
    return graph.node("Add", [out, more], f"{part.name}/Adapter", dims(out))


def fused(graph: GraphBuilder, parts: Sequence[Linear], name: str, x: ir.Value, role: str) -> ir.Value:
    """The products with several matrices of one input, as one product: their results one after the other.

    name: of the fused matrix. The parts have biases or have none, and one factor and one limit, all alike.
    """
    called = _shared_name(parts[0], name)
    shape: Dims = [*dims(x)[:-1], sum(part.size for part in parts)]
    matrix = graph.matrix(f"{called}.weight", _stacked(graph, [part.rows for part in parts]), transposed=True)
    out = graph.node("MatMul", [x, graph.computable(matrix)], f"{name}/MatMul", shape, role=role)
    biases = [part.bias for part in parts if part.bias is not None]
    if biases:
        vector = graph.vector(f"{called}.bias", _stacked(graph, biases))
        out = graph.node("Add", [out, vector], f"{name}/Add", shape)
    places = [Place(part.name, part.matrix or part.name, part.rows) for part in parts]
    out = switched(graph, places, name, x, out)
    return _limited(graph, parts[0], out, name, shape)


def can_be_fused(parts: Sequence[Linear]) -> bool:
    """Whether several linear parts give the same as one product with all their rows."""
    first = parts[0]
    alike = all((part.clip, part.factor) == (first.clip, first.factor) for part in parts)
    adapted = any(part.adapter is not None for part in parts)
    return alike and not adapted and len({part.bias is None for part in parts}) == 1


def _shared_name(first: Linear, name: str) -> str:
    """The name of a matrix, which several products share where the first part's does: that of a fused one beside it."""
    if first.matrix is None or name == first.name:
        return first.matrix or name
    return f"{first.matrix.rpartition('.')[0]}.{name.rpartition('.')[2]}"


def _limited(graph: GraphBuilder, part: Linear, out: ir.Value, name: str, shape: Dims) -> ir.Value:
    """The result with the part's factor and limit."""
    if part.factor != 1.0:
        out = graph.node("Mul", [out, graph.number(part.factor)], f"{name}/Scale", shape)
    if part.clip is not None:
        limits = [graph.number(-part.clip), graph.number(part.clip)]
        out = graph.node("Clip", [out, *limits], f"{name}/Clip", shape)
    return out


def _stacked(graph: GraphBuilder, parts: Sequence[Rows]) -> Expression:
    """The rows of all parts, one part after the other."""
    from drupe_onnx import Concat, as_type, ir

    chosen = [part.expression(graph.weights) for part in parts]
    if len(chosen) == 1:
        return chosen[0]
    if _one_run(parts):
        return graph.weights[parts[0].tensor]
    if len({each.dtype for each in chosen}) > 1:
        # The checkpoint has mixed types: float32 represents all of them.
        chosen = [as_type(each, ir.DataType.FLOAT) for each in chosen]
    return Concat(tuple(chosen))


def _one_run(parts: Sequence[Rows]) -> bool:
    """Whether the parts are all rows of one tensor, in its order: a fused matrix that can stay as it is stored."""
    first = parts[0]
    if first.transposed or any(part.tensor != first.tensor for part in parts):
        return False
    rows = [row for part in parts for each in part.ranges for row in each]
    return rows == list(range(first.shape[0]))
