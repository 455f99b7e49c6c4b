"""Recognising a model's task and facts from its graph's outline, without numpy and without reading a weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.api import ModelError
from drupe_decoding.ports import DecoderPorts, Port
from drupe_onnx.elements import ELEMENTS
from drupe_onnx.outline import Outline, read_outline
from drupe_onnx.outline import Port as GraphPort
from drupe_onnx_models.side_files import has_tokenizer

TEXT_GENERATION = "text-generation"
GRAPH = "graph"
"""The task of a graph of unknown purpose."""
MERGED = "use_cache_branch"
"""The input of optimum's merged decoders that chooses one of the two graphs inside."""


def task_of(outline: Outline, location: Path) -> str:
    """text-generation for a decoder that has a cache and a tokenizer; `graph` for all others."""
    return TEXT_GENERATION if decoder_ports(outline) is not None and has_tokenizer(location) else GRAPH


def decoder_ports(outline: Outline) -> DecoderPorts | None:
    """The ports of a decoder that takes any number of tokens after its cache; None for any other graph."""
    try:
        ports = DecoderPorts.of(_ports(outline.inputs), _ports(outline.outputs))
    except ModelError:
        return None
    takes_one = any(port.size(1) == 1 for port in ports.plain.values())
    return None if takes_one or any(cache.place.rest for cache in ports.caches) else ports


def _ports(found: Sequence[GraphPort]) -> list[Port]:
    return [Port(port.name, ELEMENTS.get(port.element, (None, 0))[0], port.shape) for port in found]


def refuse_graph(location: Path) -> None:
    """Raise ModelError for a graph that no pass supports."""
    if location.is_file() and any(port.name == MERGED for port in read_outline(location).inputs):
        raise ModelError(
            f"'{location.name}' is a merged decoder: it holds two graphs, one for the prompt and one for later tokens",
            where=location,
            cure="export the model again with optimum-onnx: its model.onnx does both with one graph",
        )
