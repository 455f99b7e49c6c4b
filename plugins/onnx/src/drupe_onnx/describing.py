"""What lies in a package's folder and what its graphs say, found without loading a library or a weight."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD, ModelError
from drupe_onnx.outline import AGAIN, ELEMENTS, Node, Outline, Weight, read_outline
from drupe_onnx.package import DECODER_KEY, FLOAT_MATRICES, LAST_TOKEN, ROLE, decoder_from

GRAPH = "model.onnx"
QUANTIZED = ("MatMulNBits", "GatherBlockQuantized", "QMoE")

_NAMED = 3  # matrices that are told by name


# Files


def graph_files(location: Path) -> list[Path]:
    """The graphs of a package, model.onnx first; of a single .onnx file, that."""
    if location.is_file():
        return [location]
    if not (location / GRAPH).is_file():
        raise ModelError(f"there is no {GRAPH}", where=location, cure=f"a folder that holds {GRAPH}")
    return sorted(location.glob("*.onnx"), key=lambda path: (path.name != GRAPH, path.name))


def files_beside(folder: Path, data: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """What goes with the graphs: all but them, their data, and the record of how they were made."""
    data = set(data)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        graph = path.parent == folder and path.suffix == ".onnx"
        if path.is_file() and not (hidden or graph or name == RECORD or path in data):
            yield name, path


def data_file(graph: Path, name: str, location: str, offset: int, nbytes: int, length: int | None) -> Path:
    """The file that holds a tensor's bytes, after making sure that they are there.

    location, offset, length: what the graph says; a length of 0 or None says nothing. nbytes: what the tensor needs.
    """
    data = _inside(graph, name, location)
    try:
        size = data.stat().st_size
    except OSError as error:
        raise ModelError(f"the data file '{location}' of '{graph.name}' is missing", where=data, cure=AGAIN) from error
    if length not in (None, 0, nbytes):
        raise ModelError(
            f"the tensor '{name}' needs {nbytes} bytes, and its graph gives it {length}", where=graph, cure=AGAIN
        )
    if offset < 0 or offset + nbytes > size:
        raise ModelError(
            f"the tensor '{name}' ends at byte {offset + nbytes} of '{location}', which has {size}",
            where=data,
            cure=AGAIN,
        )
    return data


def _inside(graph: Path, name: str, location: str) -> Path:
    """The data file by name: a graph from elsewhere must not make us read what is not part of the model.

    Where the name itself is a link, as in the hub's cache, it is followed.
    """
    data = Path(os.path.normpath(graph.parent / location))  # by name only: resolve() would follow the hub's links
    if Path(location).is_absolute() or not data.is_relative_to(os.path.normpath(graph.parent)):
        raise ModelError(
            f"the tensor '{name}' lies outside the folder of its graph, at '{location}'",
            where=graph,
            cure="put the data file beside the graph, and save the graph with its name alone",
        )
    return data


def data_files(graph: Path, outline: Outline) -> set[Path]:
    """The data files of a graph, after making sure that every weight is in them."""
    return {_data_file(graph, weight) for weight in outline.weights if weight.external}


def _data_file(graph: Path, weight: Weight) -> Path:
    said = weight.external
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or 0)
    except ValueError as error:
        raise ModelError(f"the place of the tensor '{weight.name}' is no number", where=graph, cure=AGAIN) from error
    return data_file(graph, weight.name, said.get("location", ""), offset, weight.nbytes, length)


def size_of(location: Path) -> int:
    """Bytes of the graphs, their data, and all that goes with them."""
    graphs = graph_files(location)
    data = {path for graph in graphs for path in data_files(graph, read_outline(graph))}
    paths = {*graphs, *data}
    if location.is_dir():
        paths |= {path for _, path in files_beside(location, data)}
        paths |= {location / RECORD} if (location / RECORD).is_file() else set()
    return sum(path.stat().st_size for path in paths)


# Facts


def facts_of(location: Path, outlines: Iterable[Outline]) -> dict[str, str]:
    """What plans ask of a package, from what its graphs show."""
    nodes = [node for outline in outlines for node in outline.nodes]
    return {
        "weights": "quantized" if any(node.operator in QUANTIZED for node in nodes) else "float",
        "logits": "last" if any(node.metadata.get(ROLE) == LAST_TOKEN for node in nodes) else "all",
        "packaged": "yes" if (location / "genai_config.json").is_file() else "no",
    }


# What a user is told


def describe(outlines: Mapping[str, Outline], files: Mapping[str, Path | bytes], location: Path) -> dict[str, Any]:
    """By label; sizes are in bytes. outlines: of the graphs by name. files: what goes with them."""
    described: dict[str, Any] = {"kind": "ONNX package"}
    for name, outline in outlines.items():
        prefix = "" if name == "model" else f"{name}: "
        described |= {prefix + label: value for label, value in _describe_graph(outline).items()}
    if "model" in outlines and (text := outlines["model"].metadata.get(DECODER_KEY)):
        decoder = decoder_from(text)
        described["architecture"] = f"{decoder.model_type}, {decoder.layers} layers, {decoder.hidden_size} wide"
        described["context length"] = decoder.context_length
        described["activations"] = decoder.activations
    if files:
        described["files"] = {name: _size(files[name]) for name in sorted(files)}
    return described | _describe_record(location / RECORD)


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
        described["left in float"] = f"{_matrices(len(left))}: {', '.join(left[:_NAMED])}{more}"
    return described


def _weight_bytes(weights: Iterable[Weight]) -> dict[str, int]:
    """Bytes by element type; weights that share their bytes, whatever they make of them, count once."""
    bytes_of: Counter[str] = Counter()
    seen: set[tuple[str | None, ...]] = set()
    for weight in weights:
        place = (weight.external.get("location"), weight.external.get("offset", "0"), str(weight.nbytes))
        if not weight.external or place not in seen:
            bytes_of[ELEMENTS.get(weight.element, ("unknown", 0))[0]] += weight.nbytes
            seen.add(place)
    return dict(bytes_of.most_common())


def _describe_quantization(nodes: Iterable[Node]) -> str:
    schemes = Counter(
        (node.integers["bits"], node.integers["block_size"])
        for node in nodes
        if node.operator in QUANTIZED and {"bits", "block_size"} <= node.integers.keys()
    )
    parts = [f"{bits} bits in blocks of {size} ({_matrices(count)})" for (bits, size), count in schemes.most_common()]
    return ", ".join(parts) or "none"


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
    """What the record of the run says, where the package has one."""
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
