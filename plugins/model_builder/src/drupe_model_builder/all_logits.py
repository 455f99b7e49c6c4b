"""The twin of a last-token graph that gives the logits of every token, over the same weights."""

from __future__ import annotations

from drupe_model_builder.ends import LAST_TOKEN
from drupe_model_builder.graph import ROLE
from drupe_model_builder.inputs import SEQUENCE
from drupe_onnx import ir


def all_logits(model: ir.Model) -> ir.Model:
    """A copy of `model` without the nodes that drop all but the last token.

    Weights are shared with the original, so the twin is a small file beside the same data file.
    """
    twin = model.clone()
    graph = twin.graph
    dropping = [node for node in graph if node.metadata_props.get(ROLE) == LAST_TOKEN]
    for node in dropping:
        for value in _behind(node.outputs[0]):
            if value.shape is not None and len(value.shape) == 3 and value.shape[1] == 1:
                value.shape = ir.Shape([value.shape[0], SEQUENCE, value.shape[2]])
    for node in dropping:
        whole = node.inputs[0]
        assert whole is not None
        node.outputs[0].replace_all_uses_with(whole)
    for node in reversed(list(graph)):
        if not any(each.uses() or each.is_graph_output() for each in node.outputs):
            graph.remove(node, safe=True)
    return twin


def _behind(value: ir.Value) -> list[ir.Value]:
    """`value` and all that is computed from it."""
    seen: dict[int, ir.Value] = {}
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            waiting += [output for node in each.consumers() for output in node.outputs]
    return list(seen.values())
