"""Checking a graph against what a target can run, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.api import Target
from drupe_onnx import ir
from drupe_onnx.elements import element_name
from drupe_onnx.operators import OperatorUse, capabilities_of


def problems(model: ir.Model, target: Target) -> list[str]:
    """What the target cannot run: one sentence for each cause, with its nodes.

    Empty for a target without an operator table: its own compiler decides.
    """
    capabilities = capabilities_of(target)
    nodes_with: dict[str, list[str]] = {}
    for node, use in operator_uses(model):
        refusal = capabilities.refusal(use)
        if refusal:
            nodes_with.setdefault(refusal, []).append(node.name or f"(unnamed {node.op_type})")
    return [f"{refusal} (node '{nodes[0]}'{_more(nodes)})" for refusal, nodes in nodes_with.items()]


def _more(nodes: list[str]) -> str:
    return f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""


def operator_uses(model: ir.Model) -> Iterator[tuple[ir.Node, OperatorUse]]:
    """Every node that needs a kernel, including nodes of inner graphs and of the model's own functions.

    Constants need no kernel. A call of a function counts as the nodes inside the function.
    """
    scopes: list[tuple[Any, Any]] = [(model.graph, model.graph.opset_imports)]
    scopes += [(function, function.opset_imports) for function in model.functions.values()]
    for scope, opsets in scopes:
        for node in scope.all_nodes():
            if node.op_identifier() not in model.functions and (node.domain, node.op_type) != ("", "Constant"):
                yield node, _use(node, opsets)


def _use(node: ir.Node, opsets: dict[str, int]) -> OperatorUse:
    return OperatorUse(
        domain=node.domain,
        name=node.op_type,
        version=node.version or opsets.get(node.domain) or 1,
        inputs=tuple(_element(value) for value in node.inputs),
        outputs=tuple(_element(value) for value in node.outputs),
        attributes={
            name: tuple(attribute.value) if isinstance(attribute.value, list | tuple) else attribute.value
            for name, attribute in node.attributes.items()
            if not attribute.is_ref() and attribute.type in _PLAIN
        },
    )


_PLAIN = {
    ir.AttributeType.INT,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOAT,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRING,
    ir.AttributeType.STRINGS,
}


def _element(value: ir.Value | None) -> str | None:
    """The name of an element type; "" for an input left out, None for an unknown type."""
    if value is None or value.name == "":
        return ""
    if value.dtype is None and value.const_value is not None:
        return element_name(value.const_value.dtype)
    return None if value.dtype is None or not isinstance(value.type, ir.TensorType) else element_name(value.dtype)
