"""Operators that a part cannot do without: where the target lacks one, it is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Unfit
from drupe_model_builder.dimensions import Dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


def required(
    graph: GraphBuilder,
    operator: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    outputs: Sequence[tuple[ir.DataType, Dims]],
    wanted_by: str,
    *,
    domain: str = "com.microsoft",
    **attributes: Any,
) -> Sequence[ir.Value]:
    """A node of one of onnxruntime's own operators. Raises Unfit where the target has no kernel for it.

    wanted_by: what in the model needs the operator, for the error.
    """
    from drupe_onnx import element_name, target_title

    types = [None if value is None else value.dtype for value in inputs]
    kinds = [dtype for dtype, _ in outputs]
    if not graph.serves(operator, *types, domain=domain, outputs=kinds, **attributes):
        raise Unfit(
            f"{target_title(graph.target)} has no {operator} for {element_name(graph.dtype)} activations, "
            f"which {wanted_by} needs",
            cure="choose a precision with other activations, or another provider; drupe providers lists them",
        )
    return graph.nodes(operator, inputs, name, outputs, domain=domain, **attributes)
