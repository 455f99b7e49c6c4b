"""The graphs of a model on disk, by role, and running them on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import CheckFailed, Model, Session
from drupe_decoding import CacheSizes, DecoderFeed, DecoderPorts, cache_sizes, token_shape
from drupe_onnx import package_of
from drupe_onnx.outline import Outline, read_outline
from drupe_onnx.package_folder import graph_files
from drupe_onnx_models.drawing import attempts, rows_of_tables
from drupe_onnx_models.recognizing import decoder_ports

TOKENS = 8
"""How many tokens a decoder is tried on."""

Arrays = Mapping[str, NDArray[Any]]


def outlines_of(model: Model) -> dict[str, Outline]:
    """The outline of each part of a model, by role."""
    return {role: read_outline(path) for role, path in graph_files(model.location).items()}


def run_on_random(session: Session, part: str, model: Model, outline: Outline, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Run a part of an open model on random inputs that fit it; returns inputs and outputs by name.

    Raises CheckFailed where it runs with no set of inputs, and ModelError for an input whose type cannot be drawn.
    """
    refused: list[CheckFailed] = []
    for inputs in inputs_of(model, outline, seed):
        try:
            outputs = session.run(inputs, part=part)
        except CheckFailed as error:
            refused.append(error)
            continue
        if all(np.size(array) for array in outputs.values()):
            return inputs, outputs
    raise refused[0] if refused else CheckFailed("the graph gives empty outputs for all inputs that were tried")


def inputs_of(model: Model, outline: Outline, seed: int, sizes: Mapping[str, int] | None = None) -> Iterator[Arrays]:
    """Inputs that fit a graph, for one choice of sizes after another; for a decoder, random tokens.

    sizes: of axes that vary, as Task.samples takes them.
    """
    ports = decoder_ports(outline)
    if ports is None:
        yield from attempts(outline, seed, sizes)
        return
    vocabulary = rows_of_tables(outline).get(next(iter(ports.plain)), 2)
    rows, length = token_shape(sizes, TOKENS)
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (rows, length))
    yield DecoderFeed(ports, _cache_sizes(model, ports), rows=rows).step(tokens)


def _cache_sizes(model: Model, ports: DecoderPorts) -> CacheSizes | None:
    """The sizes of caches that the graph's inputs leave open, from its attention."""
    first = ports.caches[0].past
    if first.size(1) and first.size(3):
        return None
    graph = next(iter(package_of(model).components.values())).graph
    return cache_sizes(next(value for value in graph.inputs if value.name == first.name))
