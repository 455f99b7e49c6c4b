"""Simplifying a graph from any exporter, so that products read their weights directly from initializers."""

from __future__ import annotations

from drupe_nbits.sites import transpose
from drupe_onnx import expression_of, ir
from drupe_onnx.editing import remove_unused, shared_initializer


def simplify(model: ir.Model) -> None:
    """Inline functions, turn constants into initializers, and fold nodes that only rename or transpose these."""
    # Imported here, because `drupe_onnx.ir` has to be imported first: it keeps onnx_ir from importing sympy.
    from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

    if model.functions:
        InlinePass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    RemoveInitializersFromInputsPass()(model)
    for node in list(model.graph):
        if node.op_type == "Identity" and node.domain == "":
            _fold(node, node.inputs[0])
        elif node.op_type == "Transpose" and node.domain == "":
            _fold(node, _transposed(node))
    remove_unused(model)


def _fold(node: ir.Node, value: ir.Value | None) -> None:
    """Replace the output of a node that reads an initializer by another initializer, `value`."""
    output = node.outputs[0]
    if value is None or not value.is_initializer() or output.is_graph_output():
        return
    output.replace_all_uses_with(value)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _transposed(node: ir.Node) -> ir.Value | None:
    """The transpose of an initializer that is a matrix, as an initializer; nothing is computed before it is written."""
    given, graph = node.inputs[0], node.graph
    if given is None or not given.is_initializer() or not isinstance(graph, ir.Graph):
        return None
    matrix = expression_of(given)
    order = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else (1, 0)
    if matrix is None or len(matrix.shape) != 2 or order != (1, 0):
        return None
    return shared_initializer(graph, f"{given.name}_transposed", transpose(matrix))
