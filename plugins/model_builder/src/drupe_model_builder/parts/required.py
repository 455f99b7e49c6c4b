"""Operators that a part cannot do without: where the target lacks one, it is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError
from drupe_model_builder.dimensions import Dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class Lacking(ModelError):
    """The target has no kernel for what a part needs, in any form that the part can be built in.

    what: what it lacks, without a subject: the pass that builds the graph names the target and finds a cure.
    """


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
    """A node of one of onnxruntime's own operators. Raises Lacking where the target has no kernel for it.

    wanted_by: what in the model needs the operator, for the error.
    """
    from drupe_onnx import element_name

    types = [None if value is None else value.dtype for value in inputs]
    kinds = [dtype for dtype, _ in outputs]
    if not graph.serves(operator, *types, domain=domain, outputs=kinds, **attributes):
        raise Lacking(f"has no {operator} for {element_name(graph.dtype)} activations, which {wanted_by} needs")
    return graph.nodes(operator, inputs, name, outputs, domain=domain, **attributes)
