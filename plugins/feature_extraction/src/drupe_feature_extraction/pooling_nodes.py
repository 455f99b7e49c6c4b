"""The nodes from last_hidden_state and attention_mask to sentence_embedding: pooling, layers after it, the length 1.

They are plain ONNX operators on float32, which every provider has. Only the mask says which tokens count, so padding
may stand on either side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from drupe.api import ModelError, Record
from drupe_decoding import HIDDEN_STATES, MASK
from drupe_embedding import SENTENCE_EMBEDDING
from drupe_onnx import Array, Expression, Tape, ir, shared_initializer
from drupe_onnx import Transpose as TransposeWeight

FLOAT = ir.DataType.FLOAT
OPERATORS: Mapping[str, str] = {"Identity": "", "ReLU": "Relu", "Sigmoid": "Sigmoid", "Tanh": "Tanh"}
"""The operator of each activation function."""
SMALLEST_COUNT, SMALLEST_LENGTH = 1e-9, 1e-12
"""What counts and lengths of vectors are at least, so that nothing is divided by zero; as in sentence-transformers."""


class Layer(Record):
    """A layer after pooling, with its weights as they are stored. matrix: [outputs, inputs]."""

    name: str
    matrix: Expression
    bias: Expression | None
    activation: str


def weight_name(layer: str) -> str:
    """The name of a layer's matrix [inputs, outputs] in the graph."""
    return f"pooling/{layer}.weight"


def bias_name(layer: str) -> str:
    """The name of a layer's bias in the graph."""
    return f"pooling/{layer}.bias"


def add_pooling(model: ir.Model, modes: Sequence[str], layers: Sequence[Layer], *, normalized: bool) -> None:
    """Give the graph the output sentence_embedding: [batch, modes * hidden], or the last layer's values."""
    graph = model.graph
    nodes = _Pooling(graph)
    embeddings = [nodes.pooled(mode) for mode in modes]
    result = embeddings[0] if len(embeddings) == 1 else nodes.joined(embeddings)
    for layer in layers:
        result = nodes.dense(layer, result)
    result = nodes.normalized(result) if normalized else result
    graph.extend(nodes.tape.nodes)
    result.name = SENTENCE_EMBEDDING
    graph.outputs.append(result)


def hidden_size(graph: ir.Graph) -> int:
    """The values of a token's hidden state. Raises ModelError for a graph that gives none."""
    size = _named(graph.outputs, HIDDEN_STATES).shape
    width = size[-1] if size is not None and len(size) == 3 else None
    if not isinstance(width, int):
        raise ModelError(f"the graph's output {HIDDEN_STATES} has no fixed size of a hidden state")
    return width


class _Pooling:
    """The nodes of one graph's pooling. Intermediate values that several modes need are made once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.tape = Tape()
        self._graph = graph
        self._hidden = _named(graph.outputs, HIDDEN_STATES)
        self._given = _named(graph.inputs, MASK)
        assert self._given.shape is not None
        self._rows, self._columns = self._given.shape
        self._width = hidden_size(graph)

    def pooled(self, mode: str) -> ir.Value:
        """[batch, hidden]: the hidden states of each text's tokens, pooled."""
        modes: Mapping[str, Callable[[], ir.Value]] = {
            "cls": lambda: self._token(self._mask, "First"),
            "lasttoken": lambda: self._token(self._places, "Last"),
            "max": self._largest,
            "mean": lambda: self._divided(self._sum, self._count, "Mean"),
            "mean_sqrt_len_tokens": lambda: self._divided(self._sum, self._root, "MeanOfRoot"),
            "weightedmean": self._weighted,
        }
        return modes[mode]()

    def joined(self, embeddings: Sequence[ir.Value]) -> ir.Value:
        width = self._width * len(embeddings)
        return self._node("Concat", embeddings, "Joined", [self._rows, width], axis=-1)

    def dense(self, layer: Layer, x: ir.Value) -> ir.Value:
        """activation(x @ matrix + bias) for x [batch, inputs]."""
        shape, name = [self._rows, layer.matrix.shape[0]], layer.name
        matrix = self._wide(weight_name(name), TransposeWeight(layer.matrix))
        result = self._node("MatMul", [x, matrix], f"{name}/MatMul", shape)
        if layer.bias is not None:
            result = self._node("Add", [result, self._wide(bias_name(name), layer.bias)], f"{name}/Add", shape)
        operator = OPERATORS[layer.activation]
        return self._node(operator, [result], f"{name}/{operator}", shape) if operator else result

    def _wide(self, name: str, stored: Expression) -> ir.Value:
        """A weight in float32, with a Cast where it is stored in another type."""
        value = shared_initializer(self._graph, name, stored)
        return value if value.dtype == FLOAT else self._node("Cast", [value], f"{name}/Cast", stored.shape, to=FLOAT)

    def normalized(self, x: ir.Value) -> ir.Value:
        """x [batch, size] divided by the length of each vector."""
        assert x.shape is not None
        length = self._node("ReduceL2", [x, self._integers(-1)], "Length", [self._rows, 1], keepdims=1)
        return self._divided(x, self._at_least(length, SMALLEST_LENGTH, "LengthNotZero"), "Normalized")

    @functools.cached_property
    def _mask(self) -> ir.Value:
        """float32 [batch, sequence]: 1 for a token, 0 for padding."""
        return self._node("Cast", [self._given], "Mask", [self._rows, self._columns], to=FLOAT)

    @functools.cached_property
    def _places(self) -> ir.Value:
        """[batch, sequence]: the place of each token in its text, from 1 on; 0 for padding."""
        shape = [self._rows, self._columns]
        until = self._node("CumSum", [self._mask, self._integer(1)], "Until", shape)
        return self._node("Mul", [until, self._mask], "Places", shape)

    @functools.cached_property
    def _weights(self) -> ir.Value:
        """[batch, sequence, 1]: the mask as a factor on hidden states."""
        return self._column(self._mask, "Weights")

    @functools.cached_property
    def _sum(self) -> ir.Value:
        """[batch, hidden]: the sum over the tokens."""
        return self._summed(self._weights, "Sum")

    @functools.cached_property
    def _count(self) -> ir.Value:
        """[batch, 1]: how many tokens each text has."""
        return self._counted(self._mask, "Count")

    @functools.cached_property
    def _root(self) -> ir.Value:
        return self._node("Sqrt", [self._count], "Root", [self._rows, 1])

    def _token(self, keys: ir.Value, name: str) -> ir.Value:
        """The hidden state of the token with the largest key; of equal ones, the first."""
        index = self._node(
            "ArgMax", [keys], f"{name}Place", [self._rows, 1], dtype=ir.DataType.INT64, axis=1, keepdims=1
        )
        return self._node("GatherND", [self._hidden, index], name, [self._rows, self._width], batch_dims=1)

    def _largest(self) -> ir.Value:
        shape = [self._rows, self._columns, 1]
        counts = self._node("Cast", [self._weights], "Counts", shape, dtype=ir.DataType.BOOL, to=ir.DataType.BOOL)
        inputs = [counts, self._hidden, self._number(-np.inf)]
        masked = self._node("Where", inputs, "Masked", [self._rows, self._columns, self._width])
        inputs = [masked, self._integers(1)]
        return self._node("ReduceMax", inputs, "Max", [self._rows, self._width], keepdims=0)

    def _weighted(self) -> ir.Value:
        total = self._summed(self._column(self._places, "PlaceWeights"), "WeightedSum")
        return self._divided(total, self._counted(self._places, "SumOfPlaces"), "WeightedMean")

    def _column(self, x: ir.Value, name: str) -> ir.Value:
        return self._node("Unsqueeze", [x, self._integers(-1)], name, [self._rows, self._columns, 1])

    def _summed(self, weights: ir.Value, name: str) -> ir.Value:
        """The sum over the tokens of hidden states times weights [batch, sequence, 1]."""
        shape = [self._rows, self._columns, self._width]
        weighed = self._node("Mul", [self._hidden, weights], f"{name}/Weighed", shape)
        return self._node("ReduceSum", [weighed, self._integers(1)], name, [self._rows, self._width], keepdims=0)

    def _counted(self, x: ir.Value, name: str) -> ir.Value:
        """[batch, 1]: the sum of each row."""
        total = self._node("ReduceSum", [x, self._integers(1)], name, [self._rows, 1], keepdims=1)
        return self._at_least(total, SMALLEST_COUNT, f"{name}NotZero")

    def _at_least(self, x: ir.Value, least: float, name: str) -> ir.Value:
        return self._node("Max", [x, self._number(least)], name, [self._rows, 1])

    def _divided(self, x: ir.Value, by: ir.Value, name: str) -> ir.Value:
        assert x.shape is not None
        return self._node("Div", [x, by], name, list(x.shape))

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        name: str,
        shape: Sequence[Any],
        *,
        dtype: ir.DataType = FLOAT,
        **attributes: Any,
    ) -> ir.Value:
        return self.tape.node(operator, inputs, f"pooling/{name}", dtype, shape, attributes)

    def _number(self, value: float) -> ir.Value:
        return self._constant(np.array(value, np.float32))

    def _integer(self, value: int) -> ir.Value:
        return self._constant(np.array(value, np.int64))

    def _integers(self, value: int) -> ir.Value:
        return self._constant(np.array([value], np.int64))

    def _constant(self, array: Any) -> ir.Value:
        return shared_initializer(self._graph, f"pooling/constant/{array.reshape(-1)[0]}/{array.ndim}", Array(array))


def _named(values: Sequence[ir.Value], name: str) -> ir.Value:
    found = next((value for value in values if value.name == name), None)
    if found is None:
        raise ModelError(
            f"the graph has no '{name}', so it gives no embeddings",
            cure="start from the checkpoint of an embedding model",
        )
    return found
