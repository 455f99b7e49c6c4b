"""State: what a decoder carries from one call to the next. The graph's cache inputs and outputs follow from it.

The names are those that onnxruntime-genai looks for: past_key_values.3.key, past_key_values.3.conv_state, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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

    def inputs(self, graph: GraphBuilder) -> Iterator[tuple[str, ir.DataType, Dims]]:
        """Name, type and shape of each of the state's values."""
        for part in ("key", "value"):
            yield part, graph.dtype, [BATCH, self.heads, PAST, self.head_dim]


@dataclass(frozen=True)
class ConvolutionState:
    """The inputs of a convolution before the next token: [batch, channels, length]. Zeros before the first token."""

    layer: int
    channels: int
    length: int

    def inputs(self, graph: GraphBuilder) -> Iterator[tuple[str, ir.DataType, Dims]]:
        """Name, type and shape of the state's value."""
        yield "conv_state", graph.dtype, [BATCH, self.channels, self.length]


@dataclass(frozen=True)
class RecurrentState:
    """The matrix of each head of a recurrence: float32 [batch, heads, rows, columns]. Zeros before the first token."""

    layer: int
    heads: int
    rows: int
    columns: int

    def inputs(self, graph: GraphBuilder) -> Iterator[tuple[str, ir.DataType, Dims]]:
        """Name, type and shape of the state's value."""
        from drupe_onnx import ir

        yield "recurrent_state", ir.DataType.FLOAT, [BATCH, self.heads, self.rows, self.columns]


State = KeyValueState | ConvolutionState | RecurrentState


class States:
    """The states of one decoder as the graph's inputs, and as its outputs once they have the new tokens."""

    def __init__(self, graph: GraphBuilder, states: tuple[State, ...], head_sizes: Mapping[KeyValueState, int]) -> None:
        """head_sizes: elements of a head in the caches of attention, which may be padded."""
        self._graph = graph
        self._head_sizes = head_sizes
        self._past = {state: self._inputs(state) for state in states}
        self._present: dict[State, tuple[ir.Value, ...]] = {}

    def past(self, state: State) -> tuple[ir.Value, ...]:
        """The state's values before the new tokens."""
        return self._past[state]

    def keep(self, state: State, *values: ir.Value) -> None:
        """The state's values with the new tokens."""
        self._present[state] = values

    def present(self, state: State) -> tuple[ir.Value, ...]:
        """The state's values with the new tokens, which a layer before has kept."""
        return self._present[state]

    def name_outputs(self) -> None:
        """Make all states with the new tokens outputs of the graph."""
        for state, values in self._present.items():
            for value, (part, _, _) in zip(values, self._held(state).inputs(self._graph), strict=True):
                self._graph.output(value, f"present.{state.layer}.{part}")

    def _held(self, state: State) -> State:
        """The state as the graph holds it."""
        if isinstance(state, KeyValueState):
            return replace(state, head_dim=self._head_sizes.get(state, state.head_dim))
        return state

    def _inputs(self, state: State) -> tuple[ir.Value, ...]:
        wanted = self._held(state).inputs(self._graph)
        return tuple(
            self._graph.input(f"past_key_values.{state.layer}.{part}", dtype, shape) for part, dtype, shape in wanted
        )
