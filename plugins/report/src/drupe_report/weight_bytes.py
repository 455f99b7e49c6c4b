"""What the bytes of a package's weights belong to: layers and matrices, by the marks of the nodes that read them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from drupe.api import Record
from drupe_onnx import BLOCK, ROLE
from drupe_onnx.outline import Node, Outline, Weight, read_outline
from drupe_onnx.package_folder import graph_files

OUTSIDE = "outside of the layers"
_QUANTIZED = re.compile(r"_Q\d+[A-Z]+\d+_\w+$")
"""What ONNX Runtime's tools and ours put behind the name of a quantized weight: bits, symmetry, block size, role."""
_LAYER = re.compile(r"(?:^|[./])(?:layers|blocks|h|layer)\.(\d+)\.")
_UNTELLING = re.compile(r"weight|bias|scales?|zero_points?|transposed|\d+(-\d+)?")
"""Parts of names that do not say which matrix it is."""


class WeightBytes(Record):
    """Bytes of a data file that one or more weights are stored in.

    part: the role of the graph, empty where the package has one. layer: its number; None outside of the layers.
    matrix: what the weights are for.
    """

    part: str
    layer: int | None
    matrix: str
    count: int


def weight_bytes(folder: Path) -> list[WeightBytes]:
    """The weights of all graphs of a package. Bytes that several weights of a graph share are counted once."""
    graphs = graph_files(folder)
    return [
        each for role, path in graphs.items() for each in _of_graph(role if len(graphs) > 1 else "", read_outline(path))
    ]


def by_layer(weights: Sequence[WeightBytes]) -> dict[str, int]:
    """Bytes by part and number of the layer, and those outside of the layers."""
    sizes: dict[tuple[str, int], int] = defaultdict(int)
    for each in weights:
        if each.layer is not None:
            sizes[each.part, each.layer] += each.count
    outside = sum(each.count for each in weights if each.layer is None)
    layers = {f"{part} {number}".strip(): sizes[part, number] for part, number in sorted(sizes)}
    return {**layers, OUTSIDE: outside}


def by_matrix(weights: Sequence[WeightBytes]) -> dict[str, int]:
    """Bytes by part and matrix, all layers together, the largest first."""
    sizes: dict[str, int] = defaultdict(int)
    for each in weights:
        sizes[f"{each.part} {each.matrix}".strip()] += each.count
    return dict(sorted(sizes.items(), key=lambda each: -each[1]))


def _of_graph(part: str, outline: Outline) -> Iterator[WeightBytes]:
    readers = _readers(outline)
    places: dict[tuple[str, ...], list[Weight]] = defaultdict(list)
    for weight in outline.weights:
        place = weight.external
        key = (place.get("location", ""), place.get("offset", "0")) if place else (weight.name,)
        places[key].append(weight)
    for stored in places.values():
        nodes = [node for weight in stored for node in readers.get(weight.name, ())]
        name = stored[0].name
        yield WeightBytes(part, _layer(nodes, name), _matrix(nodes, name), max(each.nbytes for each in stored))


def _readers(outline: Outline) -> Mapping[str, list[Node]]:
    """The nodes that read each weight, also through nodes that compute from weights alone, such as a Cast."""
    fixed = {weight.name for weight in outline.weights}
    through: dict[str, list[str]] = {}
    direct: dict[str, list[Node]] = defaultdict(list)
    for node in outline.nodes:
        inputs = [name for name in node.inputs if name]
        if inputs and fixed.issuperset(inputs) and ROLE not in node.metadata:
            fixed.update(node.outputs)
            for name in inputs:
                through.setdefault(name, []).extend(node.outputs)
        else:
            for name in inputs:
                direct[name].append(node)

    def reached(name: str) -> list[Node]:
        return [*direct[name], *(node for behind in through.get(name, ()) for node in reached(behind))]

    return {weight.name: reached(weight.name) for weight in outline.weights}


def _layer(nodes: Sequence[Node], name: str) -> int | None:
    """The layer of the nodes that read a weight; where they are not marked, the one that its name has."""
    blocks = {node.metadata[BLOCK] for node in nodes if BLOCK in node.metadata}
    if blocks:
        return int(blocks.pop()) if len(blocks) == 1 else None
    found = None if any(ROLE in node.metadata for node in nodes) else _LAYER.search(name)
    return int(found[1]) if found else None


def _matrix(nodes: Sequence[Node], name: str) -> str:
    """What the nodes that read a weight do; where they are not marked, the module in its name.

    `model.layers.3.mlp.up_proj.weight_Q4A32_scales` is mlp.up_proj.
    """
    if roles := {node.metadata[ROLE]: None for node in nodes if ROLE in node.metadata}:
        return " and ".join(sorted(roles))
    short = _QUANTIZED.sub("", _LAYER.split(name)[-1])
    parts = [part for part in re.split(r"[./]", short) if part and not _UNTELLING.fullmatch(part)]
    return ".".join(parts[-2:]) or name
