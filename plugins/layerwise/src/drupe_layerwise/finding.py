"""Finding blocks: where a decoder's blocks begin and end in a graph whose exporter did not mark them.

Attention says how many blocks there are: each reads key-value caches of its own. All nodes that compute from the
embedding, in the graph's order, are one line, and a block is a stretch of it. Since blocks repeat, every one begins
equally many nodes before its attention: at the place where the fewest values pass from one side to the other, taken
over all blocks, which is the residual stream and little else. The places inside of blocks where that alone passes, too,
behind attention, are ruled out by the first block: it has no block before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from drupe_layerwise.segments import INPUT_IDS, PAST, node_reads, whole
from drupe_layerwise.weights import FLOAT_PRODUCTS
from drupe_onnx import BLOCK, LAST_TOKEN, ROLE, ir

ATTENTION = frozenset({"GroupQueryAttention", "MultiHeadAttention", "Attention", "PagedAttention"})
PRODUCTS = FLOAT_PRODUCTS | {"MatMulNBits"}
LAYER = re.compile(rf"{re.escape(PAST)}(\d+)\.")


def mark_blocks(graph: ir.Graph) -> None:
    """Mark the nodes of each block, from 0 on; a graph in which no attention is found stays as it is."""
    line = _line(graph)
    attention = _attention(line)
    if not attention:
        return
    starts = _starts(attention, _passing(line))
    ends = [*starts[1:], _end(line, starts)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for node in line[start:end]:
            node.metadata_props[BLOCK] = str(number)


def _line(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that compute from the embedding, in the graph's order, its look-up first."""
    reached: set[ir.Node] = set()
    line: list[ir.Node] = []
    for node in graph:
        if _looks_up(node) or any(value.producer() in reached for value in node_reads(node)):
            reached.add(node)
            if node.metadata_props.get(ROLE) != LAST_TOKEN:
                line.append(node)
    return line


def _looks_up(node: ir.Node) -> bool:
    """Whether tokens go in here: as rows of a table, or as embeddings that were made elsewhere."""
    names = {value.name for value in node.inputs if value is not None and value.is_graph_input()}
    return "inputs_embeds" in names or (INPUT_IDS in names and node.op_type.startswith("Gather"))


def _attention(line: Sequence[ir.Node]) -> list[int]:
    """The place of each block's first node that reads its caches; without caches, of its attention."""
    first: dict[str, int] = {}
    for place, node in enumerate(line):
        for value in node.inputs:
            if value is not None and value.is_graph_input() and (layer := LAYER.match(value.name or "")):
                first.setdefault(layer[1], place)
    plain = [place for place, node in enumerate(line) if node.op_type in ATTENTION]
    return sorted(first.values()) or plain or [place for place, node in enumerate(line) if node.op_type == "Softmax"]


def _passing(line: Sequence[ir.Node]) -> list[int]:
    """How many values made before each place of the line are read at it or behind it."""
    place_of = {node: place for place, node in enumerate(line)}
    last: dict[ir.Value, int] = {}
    for place, node in enumerate(line):
        last.update((whole(value), place) for value in node_reads(node) if whole(value).producer() in place_of)
    changes = [0] * (len(line) + 1)
    for value, place in last.items():
        producer = value.producer()
        assert producer is not None
        changes[place_of[producer] + 1] += 1
        changes[place + 1] -= 1
    passing, now = [], 0
    for change in changes:
        now += change
        passing.append(now)
    return passing


def _starts(attention: Sequence[int], passing: Sequence[int]) -> list[int]:
    """Where each block begins: at the distance from attention where fewest values pass; at the longest such one."""
    room = min([attention[0] - 1, *(later - earlier for earlier, later in pairwise(attention))])
    distances = range(max(0, room), -1, -1)
    best = min(distances, key=lambda distance: sum(passing[place - distance] for place in attention))
    return [place - best for place in attention]


def _end(line: Sequence[ir.Node], starts: Sequence[int]) -> int:
    """Where the last block ends: it is as long as the one before; a single one goes on until the norm of the head."""
    if len(starts) > 1:
        return min(len(line) - 1, 2 * starts[-1] - starts[-2])
    head = max((place for place, node in enumerate(line) if node.op_type in PRODUCTS), default=len(line))
    norms = [place for place in range(starts[0], head) if "Normalization" in line[place].op_type]
    products = [place for place in range(starts[0], head) if line[place].op_type in PRODUCTS]
    return norms[-1] if norms and products and norms[-1] > products[-1] else head
