"""Decoder: a graph with key-value caches, run step by step. The caches stay in onnxruntime's own values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import CheckFailed, ModelError
from drupe_decoding import CacheSizes, DecoderFeed, DecoderPorts, Port, is_state

ELEMENT_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "bfloat16": 16,
}  # fmt: skip
"""ONNX's numbers of element types. Caches are made by number, because numpy has no bfloat16."""
_NAMES = {"float": "float32", "double": "float64"}
"""Names of element types that differ in onnxruntime."""


def is_decoder(graph: Any) -> bool:
    """Whether an onnxruntime.InferenceSession holds a decoder."""
    try:
        ports_of(graph)
    except ModelError:
        return False
    return True


def ports_of(graph: Any) -> DecoderPorts:
    """Which input and output of an InferenceSession is which. Raises ModelError for a graph that is not a decoder."""
    return DecoderPorts.of(map(_port, graph.get_inputs()), map(_port, graph.get_outputs()))


def _port(value: Any) -> Port:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    return Port(value.name, _NAMES.get(element, element), value.shape)


class Decoder:
    """Runs a decoder on rows of tokens: takes tokens, keeps the caches, and gives the logits of the last ones."""

    def __init__(self, module: Any, graph: Any, sizes: CacheSizes, rows: int = 1, options: Any = None) -> None:
        """graph: an onnxruntime.InferenceSession. options: onnxruntime.RunOptions of each step.

        Raises ModelError for a graph that is not a decoder.
        """
        self._values = module.OrtValue
        self._graph = graph
        self._options = options
        self._feed = DecoderFeed(ports_of(graph), sizes, self._empty, rows)

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model knows; None where the graph does not say it."""
        return self._feed.ports.logits.size(2)

    @property
    def length(self) -> int:
        """How many tokens the decoder has read."""
        return self._feed.length

    def step(self, tokens: Sequence[int]) -> NDArray[np.floating]:
        """Read further `tokens` of the only row; returns the logits of the last one: [vocabulary]."""
        last: NDArray[np.floating] = self.step_rows(np.asarray(tokens)[None])[0]
        return last

    def step_rows(self, tokens: NDArray[Any]) -> NDArray[np.floating]:
        """Read further `tokens`, [rows, length]; returns the logits of the last ones: [rows, vocabulary]."""
        feeds = {name: self._value(given) for name, given in self._feed.step(tokens).items()}
        names = self._feed.ports.outputs
        try:
            results = dict(zip(names, self._graph.run_with_ort_values(names, feeds, self._options), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
            raise CheckFailed(f"onnxruntime cannot run the model: {error}") from error
        self._feed.keep(results)
        last: NDArray[np.floating] = results[self._feed.ports.logits.name].numpy()[:, -1]
        return last

    def _empty(self, cache: Port, shape: tuple[int, ...]) -> Any:
        if cache.element_type not in ELEMENT_TYPES:
            raise ModelError(
                f"onnxruntime cannot make an empty cache '{cache.name}' of element type {cache.element_type}"
            )
        element = ELEMENT_TYPES[cache.element_type]
        if is_state(cache.name):  # it is read before it is written, so it must be zeros
            width = np.float32 if cache.element_type == "float32" else np.uint16
            return self._values.ortvalue_from_numpy_with_onnx_type(np.zeros(shape, width), element)
        return self._values.ortvalue_from_shape_and_type(list(shape), element)

    def _value(self, given: Any) -> Any:
        return self._values.ortvalue_from_numpy(given) if isinstance(given, np.ndarray) else given
