"""Editing graphs: adding nodes with typed outputs, sharing initializers of equal content, removing what is unused.

Passes edit with this module and with onnx_ir: `ir.node` makes one node, `ir.convenience` replaces nodes and values. A
pass that puts a node before another one::

    tape = Tape()
    factor = shared_initializer(graph, f"{node.name}/factor", Array(np.array(2, np.float32)))
    doubled = tape.node("Mul", [x, factor], f"{node.name}/Doubled", x.dtype, x.shape)
    graph.insert_before(node, tape.nodes)
    node.replace_input_with(0, doubled)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from drupe_onnx import ir
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.weights import expression_of, initializer

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""

Dims: TypeAlias = ir.Shape | Sequence[int | str | None]
Attributes: TypeAlias = Mapping[str, Any]
"""Values of attributes: numbers, texts, sequences of them, element types, or `ir.Attr`."""


class Tape(ir.tape.Tape):
    """onnx_ir's tape, which also names each node and gives its outputs names, types and shapes.

    marks: metadata that every recorded node gets.
    """

    def __init__(self, marks: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._marks = dict(marks or {})

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtype: ir.DataType | None,
        shape: Dims | None = None,
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        marks: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> ir.Value:
        """Record a node and return its one output, which is called "NAME/output_0" unless `output` says otherwise."""
        return self.op(
            operator,
            inputs,
            attributes,
            domain=domain,
            name=name,
            metadata_props={**self._marks, **(marks or {})},
            output=ir.val(output or _output_name(name, 0), dtype, shape),
        )

    def node_of_several(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        outputs: Sequence[tuple[ir.DataType | None, Dims | None] | None],
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        marks: Mapping[str, str] | None = None,
    ) -> Sequence[ir.Value]:
        """Record a node with several outputs, each given by type and shape; None stands for an output left out."""
        return self.op_multi_out(
            operator,
            inputs,
            attributes,
            domain=domain,
            name=name,
            metadata_props={**self._marks, **(marks or {})},
            outputs=[
                ir.val("") if each is None else ir.val(_output_name(name, place), *each)
                for place, each in enumerate(outputs)
            ],
        )


def _output_name(node: str, place: int) -> str:
    return f"{node}/output_{place}"


def shared_initializer(graph: ir.Graph, name: str, expression: Expression) -> ir.Value:
    """The initializer of this name and content. An equal one is used again. Where another initializer has the name, a
    number is added to the new one's."""
    wanted, number = name, 1
    while (existing := graph.initializers.get(name)) is not None:
        if expression_of(existing) == expression:
            return existing
        number += 1
        name = f"{wanted}_{number}"
    value = initializer(name, expression)
    graph.register_initializer(value)
    return value


def remove_unused(model: ir.Model) -> None:
    """Remove nodes and initializers of the model's graph that no output depends on.

    onnx_ir has a pass for it. That pass loads onnx's schemas, which take 9 MB, and no conversion needs them otherwise.
    """
    graph = model.graph
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output()):
            del graph.initializers[name]
