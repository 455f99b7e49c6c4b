"""The guard of graphs with recurrent states: after the first call, rows of a batch must have equally many new tokens.

Before a row's first token its states are zeros, which padding leaves as they are. Later, padding would decay a state
and move a convolution's window, and the row's text would go wrong without an error.
"""

from __future__ import annotations

from drupe_model_builder.dimensions import BATCH, TOTAL
from drupe_model_builder.graph import GraphBuilder
from drupe_onnx import ir

MESSAGE = "rows with unequal numbers of new tokens cannot share a batch: this model has recurrent states"
"""The name of the node that fails then: runtimes name it in their error."""
INT64 = ir.DataType.INT64


def refuse_later_padding(graph: GraphBuilder, mask: ir.Value, ids: ir.Value, *, first_too: bool) -> ir.Value:
    """The attention mask [batch, total]. Padding among new tokens makes the graph fail, by a Reshape to a wrong size.

    A Reshape is the only way: every runtime checks its sizes, while an index out of range passes on some.
    first_too: whether padding is refused in the first call as well.
    """
    name = "later_padding"
    shape = graph.node("Shape", [mask], f"{name}/Total", [2], dtype=INT64)
    total = graph.node("Shape", [mask], f"{name}/Length", [1], dtype=INT64, start=1, end=2)
    width = graph.node("Shape", [ids], f"{name}/Width", [1], dtype=INT64, start=1, end=2)
    past = graph.node("Sub", [total, width], f"{name}/Past", [1], dtype=INT64)
    new = graph.node("Slice", [mask, past, total, graph.integers([1])], f"{name}/New", [BATCH, "sequence"], dtype=INT64)
    least = graph.node("ReduceMin", [new, graph.integers([0, 1])], f"{name}/Least", [], dtype=INT64, keepdims=0)
    padded = graph.node("Sub", [graph.integers(1), least], f"{name}/Padded", [], dtype=INT64)
    surplus = padded if first_too else graph.node("Mul", [padded, past], f"{name}/Surplus", [1], dtype=INT64)
    wanted = graph.node("Add", [shape, surplus], f"{name}/Shape", [2], dtype=INT64)
    return graph.node("Reshape", [mask, wanted], MESSAGE, [BATCH, TOTAL], dtype=INT64)
