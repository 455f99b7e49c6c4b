"""The description of a decoder for runtimes, from its graph and the configurations beside it.

Sizes that the graph fixes come first. genai_config.json and config.json give the other sizes, and the rest is computed
from the graph's tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, counted
from drupe_decoding import TAKEN_FROM, DecoderPorts, cache_sizes
from drupe_decoding.ports import POSITIONS
from drupe_nbits import EMBEDDING
from drupe_onnx import ROLE, DecoderDescription, element_name, expression_of, ir
from drupe_onnx.size_keys import SIZE_KEYS
from drupe_onnx_models.side_files import CONFIG, GENAI, GENERATION, object_in

GENERIC = "decoder"
"""The model type of a decoder without a configuration."""
LONGEST = 1 << 24
"""Tokens. A larger number in a tokenizer's settings means "no limit"."""
SEARCH = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
Files = Mapping[str, Path | bytes]


def describe(graph: ir.Graph, ports: DecoderPorts, files: Files) -> DecoderDescription:
    """The description of a decoder. Raises ModelError where a size is missing, or two sources contradict each other."""
    said = _said(files)
    fixed = _fixed(graph, ports)
    _refuse_other_model(fixed, said)
    sizes = _completed({**_length_of_tokenizer(files), **_worked_out(graph), **said, **fixed})
    missing = [name for name in SIZE_KEYS if name not in sizes]
    if missing:
        raise ModelError(
            f"neither the graph nor a configuration beside it gives the decoder's {missing[0]}",
            cure=f"put the model's {CONFIG} beside the graph",
        )
    element = cache_type(graph, ports)
    return DecoderDescription(
        model_type=_model_type(files),
        **{name: sizes[name] for name in SIZE_KEYS},
        activations=element,
        kv_dtype=element,
        bos=next(iter(_tokens(files, "bos_token_id")), None),
        eos=_tokens(files, "eos_token_id"),
        pad=next(iter(_tokens(files, "pad_token_id")), None),
    )


def _completed(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes, with those that follow from others: the size of a head, and the number of key-value heads."""
    found = dict(sizes)
    if {"hidden_size", "heads"} <= found.keys():
        found.setdefault("head_dim", found["hidden_size"] // found["heads"])
    if {"hidden_size", "head_dim"} <= found.keys():
        found.setdefault("heads", found["hidden_size"] // found["head_dim"])
    if "heads" in found:
        found.setdefault("kv_heads", found["heads"])
    return found


def generation_config(files: Files) -> bytes | None:
    """generation_config.json made from genai_config.json, if only that file has settings for generation."""
    genai = _genai(files)
    if not genai or GENERATION in files:
        return None
    search = object_in(files, GENAI).get("search")
    kept = {name: search[name] for name in SEARCH if isinstance(search, dict) and name in search}
    kept |= {name: genai[name] for name in TOKENS if name in genai}
    return (json.dumps({**kept, TAKEN_FROM: GENAI}, indent=2) + "\n").encode() if kept else None


def cache_type(graph: ir.Graph, ports: DecoderPorts) -> str:
    """The element type of a decoder's caches."""
    dtype = _cache(graph, ports).dtype
    return "float32" if dtype is None else element_name(dtype)


def _cache(graph: ir.Graph, ports: DecoderPorts) -> ir.Value:
    """One of the caches, as an input of the graph."""
    return next(value for value in graph.inputs if value.name == ports.caches[0].past.name)


# What the graph says


def _fixed(graph: ir.Graph, ports: DecoderPorts) -> dict[str, int]:
    """The sizes that the graph's inputs and outputs fix, and its attention."""
    first, cache = ports.caches[0].past, _cache(graph, ports)
    attention = cache_sizes(cache)
    found = {
        "layers": len({cache.place.layer for cache in ports.caches}),
        "kv_heads": first.size(1) or attention.heads,
        "head_dim": first.size(3) or attention.head_size,
        "heads": next((node.attributes["num_heads"].as_int() for node in _with_heads(cache)), None),
        "vocab_size": ports.logits.size(2),
    }
    return {name: size for name, size in found.items() if size}


def _with_heads(cache: ir.Value) -> Iterable[ir.Node]:
    return (node for node in cache.consumers() if "num_heads" in node.attributes)


def _worked_out(graph: ir.Graph) -> dict[str, int]:
    """The sizes that follow from the graph's tables, for sizes that no configuration gives."""
    found: dict[str, int] = {}
    for node in graph:
        table = node.inputs[0] if node.inputs else None
        matrix = _matrix(table)
        if matrix is None or node.op_type != "Gather":
            continue
        if node.metadata_props.get(ROLE) == EMBEDDING:
            found |= {"vocab_size": matrix[0], "hidden_size": matrix[1]}
        elif (index := node.inputs[1]) is not None and index.name == POSITIONS:
            found["context_length"] = matrix[0]
    for value in graph.initializers.values():
        if (value.name or "").endswith("cos_cache") and (matrix := _matrix(value)) is not None:
            found["context_length"] = matrix[0]
    return found


def _matrix(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of an initializer that is a matrix."""
    expression = expression_of(value) if value is not None and value.is_initializer() else None
    return expression.shape if expression is not None and len(expression.shape) == 2 else None


# What the configurations say


def _genai(files: Files) -> dict[str, Any]:
    """The section `model` of genai_config.json, and its section on the decoder."""
    model = object_in(files, GENAI).get("model")
    if not isinstance(model, dict):
        return {}
    decoder = model.get("decoder")
    return {**(decoder if isinstance(decoder, dict) else {}), **model}


def _config(files: Files) -> dict[str, Any]:
    """config.json; in a model of several parts, with the text model's settings on the top level."""
    config = object_in(files, CONFIG)
    nested = config.get("text_config")
    return {**config, **(nested if isinstance(nested, dict) else {})}


def _said(files: Files) -> dict[str, int]:
    """The sizes in configurations; genai_config.json overrides config.json."""
    found: dict[str, int] = {}
    for document in (_config(files), _genai(files)):
        for name, spellings in SIZE_KEYS.items():
            sizes = [size for spelling in spellings if (size := _size(document.get(spelling))) is not None]
            if sizes:
                found[name] = sizes[0]
    return found


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _refuse_other_model(fixed: Mapping[str, int], said: Mapping[str, int]) -> None:
    """Raise ModelError for a configuration of another model: it would give wrong sizes."""
    ours, theirs = fixed["layers"], said.get("layers")
    if theirs not in (None, ours):
        raise ModelError(
            f"the graph has caches for {counted(ours, 'layer')}, but the configuration beside it says {theirs}",
            cure=f"put the {CONFIG} or {GENAI} of this model beside the graph",
        )


def _model_type(files: Files) -> str:
    for found in (_config(files).get("model_type"), _genai(files).get("type")):
        if isinstance(found, str) and found:
            return found
    return GENERIC


def _length_of_tokenizer(files: Files) -> dict[str, int]:
    """How many tokens a sequence may have by the tokenizer's settings; None where they set no limit."""
    name = "tokenizer_config.json"
    length = _size(object_in(files, name).get("model_max_length"))
    return {} if length is None or length > LONGEST else {"context_length": length}


def _tokens(files: Files, key: str) -> tuple[int, ...]:
    """Token ids; generation_config.json overrides the others, as in transformers."""
    for document in (object_in(files, GENERATION), _genai(files), _config(files)):
        value = document.get(key)
        listed = value if isinstance(value, list) else [value]
        if found := tuple(each for each in listed if isinstance(each, int) and not isinstance(each, bool)):
            return found
    return ()
