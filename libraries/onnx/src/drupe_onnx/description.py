"""Describing a package to a user, from the outlines of its graphs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD
from drupe_onnx.decoder_description import DECODER_KEY, decoder_from
from drupe_onnx.elements import ELEMENTS
from drupe_onnx.facts import QUANTIZED
from drupe_onnx.metadata import FLOAT_MATRICES
from drupe_onnx.outline import Node, Outline, Weight
from drupe_onnx.switching import ADAPTERS, Switching

_NAMED = 3  # how many matrices are listed by name


def describe(outlines: Mapping[str, Outline], files: Mapping[str, Path | bytes], location: Path) -> dict[str, Any]:
    """The description, by label; sizes are in bytes. outlines: of the graphs, by role. files: those beside them."""
    graphs = {role: {**_describe_graph(outline), **_describe_decoder(outline)} for role, outline in outlines.items()}
    described: dict[str, Any] = (
        next(iter(graphs.values()))
        if len(graphs) == 1
        else {
            "graphs": [{"label": role, "role": role, "text": _in_words(told), **told} for role, told in graphs.items()]
        }
    )
    if files:
        described["files"] = {name: _size(files[name]) for name in sorted(files)}
    return described | _describe_adapters(files) | _describe_record(location / RECORD)


def _describe_adapters(files: Mapping[str, Path | bytes]) -> dict[str, Any]:
    """The adapters that a package switches between: their names, and what is known of each."""
    held = files.get(ADAPTERS)
    if held is None:
        return {}
    switching = Switching.read(held if isinstance(held, bytes) else held.read_bytes(), Path(ADAPTERS))
    told = [
        {
            "label": f"adapter {name}",
            "text": f"{_size(files[file]) / 1e6:.3g} MB, made of {switching.sources.get(name, 'a file')}",
            "name": name,
            "file": file,
            "bytes": _size(files[file]),
            "source": switching.sources.get(name),
        }
        for name, file in switching.adapters.items()
        if file in files
    ]
    return {"adapters": told, "adapted products": len(switching.products)}


def _in_words(told: Mapping[str, Any]) -> str:
    """A graph of several, in one line."""
    schemes = ", ".join(each["text"] for each in told["quantization"]) or "not quantized"
    return f"{told['operators']} operators, {told['weight bytes'] / 1e6:.3g} MB of weights, {schemes}"


def _describe_graph(outline: Outline) -> dict[str, Any]:
    bytes_of = _weight_bytes(outline.weights)
    described = {
        "operators": len(outline.nodes),
        "weight bytes": sum(bytes_of.values()),
        "bytes by type": bytes_of,
        "quantization": _describe_quantization(outline.nodes),
    }
    if left := _left_in_float(outline):
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        described["left in float"] = {
            "text": f"{_matrices(len(left))}: {', '.join(left[:_NAMED])}{more}",
            "matrices": left,
        }
    return described


def _describe_decoder(outline: Outline) -> dict[str, Any]:
    """The sizes of a decoder, under the labels that a checkpoint has for them."""
    text = outline.metadata.get(DECODER_KEY)
    if text is None:
        return {}
    decoder = decoder_from(text)
    return {
        "model type": decoder.model_type,
        "layers": decoder.layers,
        "hidden size": decoder.hidden_size,
        "attention heads": decoder.heads,
        "key and value heads": decoder.kv_heads,
        "head size": decoder.head_dim,
        "vocabulary": decoder.vocab_size,
        "context length": decoder.context_length,
        "activations": decoder.activations,
    }


def _weight_bytes(weights: Iterable[Weight]) -> dict[str, int]:
    """Bytes by element type; weights that share their bytes count once, also where their types differ."""
    bytes_of: Counter[str] = Counter()
    seen: set[tuple[str | None, ...]] = set()
    for weight in weights:
        place = (weight.external.get("location"), weight.external.get("offset", "0"), str(weight.nbytes))
        if not weight.external or place not in seen:
            bytes_of[ELEMENTS.get(weight.element, ("unknown", 0))[0]] += weight.nbytes
            seen.add(place)
    return dict(bytes_of.most_common())


def _describe_quantization(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """The schemes of the quantized matrices, the most frequent first."""
    schemes = Counter(
        (node.integers["bits"], node.integers["block_size"])
        for node in nodes
        if node.operator in QUANTIZED and {"bits", "block_size"} <= node.integers.keys()
    )
    return [
        {
            "text": f"{bits} bits in blocks of {size} ({_matrices(count)})",
            "bits": bits,
            "block size": size,
            "matrices": count,
        }
        for (bits, size), count in schemes.most_common()
    ]


def _matrices(count: int) -> str:
    return f"{count} {'matrices' if count > 1 else 'matrix'}"


def _left_in_float(outline: Outline) -> list[str]:
    try:
        names = json.loads(outline.metadata.get(FLOAT_MATRICES, "[]"))
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _describe_record(path: Path) -> dict[str, str]:
    """Facts from the record of the run, if the package has one."""
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    target = record.get("target") if isinstance(record.get("target"), dict) else {}
    told = {
        "made for": (target or {}).get("provider"),
        "precision": record.get("precision"),
        "made by": record.get("drupe") and f"drupe {record['drupe']}",
    }
    return {label: str(text) for label, text in told.items() if text}
