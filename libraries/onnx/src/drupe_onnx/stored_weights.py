"""How the weights of a package are stored: a table with one line for each role, range of rows and scheme."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from drupe.api import StoredWeights
from drupe_onnx import ir
from drupe_onnx.distinct_weights import distinct_weights
from drupe_onnx.elements import element_name
from drupe_onnx.metadata import BLOCK, ROLE, ROWS

BLOCKWISE = {"MatMulNBits": "bits", "GatherBlockQuantized": "bits", "QMoE": "expert_weight_bits"}
"""Operators on weights that are quantized in blocks, and their attribute that holds the bits."""
OTHERS = "norms, biases and the rest"


def stored_weights(graph: ir.Graph) -> list[StoredWeights]:
    """The lines, in the order of the graph. A weight that several nodes use counts for the first of them."""
    groups: dict[tuple[str, str, str], tuple[list[int], int]] = {}
    seen: set[object] = set()
    rest = 0
    constant = _constant_nodes(graph)
    for node in graph:
        if node in constant:  # its weights count for the nodes that read its result
            continue
        held = list(_held(node, constant))
        nbytes = sum(tensor.nbytes for tensor in distinct_weights(held, seen))
        role = node.metadata_props.get(ROLE)
        matrix = next((value for value in held if value.shape is not None and len(value.shape) > 1), None)
        if role is None or matrix is None:
            rest += nbytes
            continue
        key = (role, _scheme(node, matrix), node.metadata_props.get(ROWS, ""))
        numbers, before = groups.setdefault(key, ([], 0))
        numbers += [int(number)] if (number := node.metadata_props.get(BLOCK, "")).isdigit() else []
        groups[key] = (numbers, before + nbytes)
    found = [
        StoredWeights(role, scheme, _ranges(set(numbers)), nbytes, rows)
        for (role, scheme, rows), (numbers, nbytes) in groups.items()
    ]
    return [*found, StoredWeights(OTHERS, "", "", rest)]


def _held(node: ir.Node, constant: Container[ir.Node | None]) -> Iterator[ir.Value]:
    """The initializers that a node reads, also through nodes that compute from initializers alone."""
    for value in node.inputs:
        if value is not None and value.is_initializer():
            yield value
        elif value is not None and (producer := value.producer()) is not None and producer in constant:
            yield from _held(producer, constant)


def _constant_nodes(graph: ir.Graph) -> set[ir.Node | None]:
    """The nodes that compute from initializers alone."""
    found: set[ir.Node | None] = set()
    for node in graph:
        values = [value for value in node.inputs if value is not None]
        if values and all(value.is_initializer() or value.producer() in found for value in values):
            found.add(node)
    return found


def _scheme(node: ir.Node, matrix: ir.Value) -> str:
    """Bits and block size, or the element type where the weight is not quantized."""
    if node.op_type in BLOCKWISE:
        bits, size = (node.attributes[name].as_int() for name in (BLOCKWISE[node.op_type], "block_size"))
        return f"{bits} bits, blocks of {size}"
    return element_name(matrix.dtype) if matrix.dtype is not None else ""


def _ranges(numbers: Iterable[int]) -> str:
    """ "0-2, 5" of 0, 1, 2, 5."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)
