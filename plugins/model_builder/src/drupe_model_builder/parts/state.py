"""State: what a decoder carries from one call to the next. The graph's cache inputs and outputs follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import BATCH, PAST, Dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


@dataclass(frozen=True)
class KeyValueState:
    """The keys and values of one layer's attention: [batch, heads, past, head_dim] each."""

    layer: int
    heads: int
    head_dim: int


class States:
    """The states of one decoder as the graph's inputs, and as its outputs once they have the new tokens."""

    def __init__(self, graph: GraphBuilder, states: tuple[KeyValueState, ...]) -> None:
        self._graph = graph
        self._past = {state.layer: self._inputs(state) for state in states}
        self._present: dict[int, tuple[ir.Value, ir.Value]] = {}

    def past(self, layer: int) -> tuple[ir.Value, ir.Value]:
        """The keys and values before the new tokens."""
        return self._past[layer]

    def keep(self, layer: int, key: ir.Value, value: ir.Value) -> None:
        """The keys and values with the new tokens."""
        self._present[layer] = (key, value)

    def name_outputs(self) -> None:
        """Make all states with the new tokens outputs of the graph."""
        for layer, (key, value) in self._present.items():
            self._graph.output(key, f"present.{layer}.key")
            self._graph.output(value, f"present.{layer}.value")

    def _inputs(self, state: KeyValueState) -> tuple[ir.Value, ir.Value]:
        shape: Dims = [BATCH, state.heads, PAST, state.head_dim]
        names = (f"past_key_values.{state.layer}.{part}" for part in ("key", "value"))
        key, value = (self._graph.input(name, self._graph.dtype, shape) for name in names)
        return key, value
