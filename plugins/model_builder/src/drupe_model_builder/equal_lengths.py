"""The guard of graphs with recurrent states: rows of a batch must have equal lengths.

A state has no places that a mask could leave out: the padding of a shorter row would become part of it, and the row's
text would go wrong without an error.
"""

from __future__ import annotations

from drupe_model_builder.dimensions import BATCH, TOTAL
from drupe_model_builder.graph import GraphBuilder
from drupe_onnx import ir

MESSAGE = "rows of unequal lengths cannot share a batch: this model has recurrent states"
"""The name of the node that fails then: runtimes name it in their error."""


def refuse_unequal(graph: GraphBuilder, mask: ir.Value) -> ir.Value:
    """The attention mask [batch, total]. A mask with zeros makes the graph fail: it is not reshaped to its own shape.

    A Reshape is the only way: every runtime checks its sizes, while an index out of range passes on some.
    """
    int64, name = ir.DataType.INT64, "equal_lengths"
    shape = graph.node("Shape", [mask], f"{name}/Rows", [1], dtype=int64, start=0, end=1)
    count = graph.node("ReduceSum", [mask, graph.integers([1])], f"{name}/Counts", [BATCH], dtype=int64, keepdims=0)
    shortest = graph.node("ReduceMin", [count, graph.integers([0])], f"{name}/Shortest", [1], dtype=int64, keepdims=1)
    wanted = graph.node("Concat", [shape, shortest], f"{name}/Shape", [2], dtype=int64, axis=0)
    return graph.node("Reshape", [mask, wanted], MESSAGE, [BATCH, TOTAL], dtype=int64)
