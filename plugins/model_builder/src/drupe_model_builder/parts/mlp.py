"""MLP: down(activation(gate(x)) * up(x)), or down(activation(up(x))) without a gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.activations import Xielu, activate
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.sparse_gate import SparseGate, sparse

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class MLP(Record):
    """The feed-forward half of a block.

    name: the prefix of its nodes. gate: None without a gate. activation: its name in ACTIVATIONS, or one with tensors.
    inner_norm: a norm before `down`, as BitNet has one. sparse_gate: before the activation; None for all values.
    """

    name: str
    up: Linear
    down: Linear
    activation: str | Xielu
    gate: Linear | None = None
    inner_norm: Norm | None = None
    sparse_gate: SparseGate | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.gate, self.up, self.down, self.inner_norm, self.activation):
            if part is not None and not isinstance(part, str):
                yield from part.tensors()


def mlp(graph: GraphBuilder, part: MLP, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]."""

    activation, name = part.activation, f"{part.name}.activation"
    if part.gate is None:
        raised = linear(graph, part.up, x, "mlp.up")
        inner = activate(graph, activation, raised, name)
    else:
        opened = linear(graph, part.gate, x, "mlp.gate")
        if part.sparse_gate is not None:
            opened = sparse(graph, part.sparse_gate, opened, f"{part.name}.sparse")
        opened = activate(graph, activation, opened, name)
        raised = linear(graph, part.up, x, "mlp.up")
        inner = graph.node("Mul", [opened, raised], f"{part.name}/Mul", dims(raised))
    if part.inner_norm is not None:
        inner = norm(graph, part.inner_norm, inner)
    return linear(graph, part.down, inner, "mlp.down")
