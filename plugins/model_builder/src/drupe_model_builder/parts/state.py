"""State: what a decoder carries from one call to the next. The graph's cache inputs and outputs follow from it.

The names are those that onnxruntime-genai looks for: past_key_values.3.key, past_key_values.3.conv_state, ...
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from drupe.api import Record, replace
from drupe_model_builder.dimensions import BATCH, PAST, Dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class KeyValueState(Record):
    """The keys and values of one layer's attention: [batch, heads, past, head_dim] each."""

    layer: int
    heads: int
    head_dim: int

    def inputs(self, graph: GraphBuilder) -> Iterator[tuple[str, ir.DataType, Dims]]:
        """Name, type and shape of each of the state's values."""
        for part in ("key", "value"):
            yield part, graph.dtype, [BATCH, self.heads, PAST, self.head_dim]


class ConvolutionState(Record):
    """The inputs of a convolution before the next token: [batch, channels, length]. Zeros before the first token."""

    layer: int
    channels: int
    length: int

    def inputs(self, graph: GraphBuilder) -> Iterator[tuple[str, ir.DataType, Dims]]:
        """Name, type and shape of the state's value."""
        yield "conv_state", graph.dtype, [BATCH, self.channels, self.length]


class RecurrentState(Record):
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
    """The states of one decoder as the graph's inputs, and as its outputs once they have the new tokens.

    Where they are not carried from call to call, each call begins without a past: no caches, and states of zeros.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        states: tuple[State, ...],
        head_sizes: Mapping[KeyValueState, int],
        ids: ir.Value,
        *,
        carried: bool,
    ) -> None:
        """head_sizes: elements of a head in the caches of attention, which may be padded. ids: the graph's tokens."""
        self._graph = graph
        self._head_sizes = head_sizes
        self._ids = ids
        self._past = {state: self._inputs(state) for state in states} if carried else {}
        self._present: dict[State, tuple[ir.Value, ...]] = {}

    @property
    def carried(self) -> bool:
        """Whether the states come from the call before and go to the next one."""
        return bool(self._past)

    def past(self, state: State) -> tuple[ir.Value, ...]:
        """The state's values before the new tokens: caches without tokens, and states of zeros, if none are carried."""
        return self._past[state] if self.carried else self._empty(state)

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

    def _empty(self, state: State) -> tuple[ir.Value, ...]:
        wanted = self._held(state).inputs(self._graph)
        return tuple(self._zeros(f"no_past.{state.layer}.{part}", dtype, shape) for part, dtype, shape in wanted)

    def _zeros(self, name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
        """Zeros for each row of the batch, of a past without tokens."""
        from drupe_onnx import ir

        graph, whole = self._graph, ir.DataType.INT64
        shape = [0 if each == PAST else each for each in shape]
        sizes = graph.integers([each for each in shape[1:] if isinstance(each, int)])
        wanted = graph.node("Concat", [self._rows, sizes], f"{name}/Sizes", [len(shape)], dtype=whole, axis=0)
        return graph.node("Expand", [graph.number(0.0, dtype), wanted], name, shape, dtype=dtype)

    @functools.cached_property
    def _rows(self) -> ir.Value:
        """int64 [1]: how many rows the batch has."""
        from drupe_onnx import ir

        return self._graph.node("Shape", [self._ids], "input_ids/Rows", [1], dtype=ir.DataType.INT64, start=0, end=1)

    def _inputs(self, state: State) -> tuple[ir.Value, ...]:
        wanted = self._held(state).inputs(self._graph)
        return tuple(
            self._graph.input(f"past_key_values.{state.layer}.{part}", dtype, shape) for part, dtype, shape in wanted
        )
