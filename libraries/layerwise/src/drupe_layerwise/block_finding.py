"""Finding blocks: where a decoder's blocks begin and end in a graph whose exporter did not mark them.

The attention nodes give the number of blocks: each block reads its own key-value caches. All nodes that compute from
the embedding, in the graph's order, form one line, and a block is a stretch of the line. Blocks repeat, so each begins
the same number of nodes before its attention. That is the place where, summed over all blocks, the fewest values pass
from one side to the other: the residual stream and little else. The residual stream also passes alone at a place inside
each block, after attention. The first block rules that place out, because no block comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from drupe_decoding import TOKENS, cache_name
from drupe_layerwise.segments import node_reads, whole
from drupe_layerwise.weights import FLOAT_PRODUCTS
from drupe_onnx import BLOCK, LAST_TOKEN, PADDING, ROLE, ir

ATTENTION = frozenset({"GroupQueryAttention", "MultiHeadAttention", "Attention", "PagedAttention"})
PRODUCTS = FLOAT_PRODUCTS | {"MatMulNBits"}
SHAPES = frozenset({"Shape", "Size"})
"""Operators that pass on how large a value is: a mask that is made of that belongs to no block."""


def mark_blocks(graph: ir.Graph) -> None:
    """Mark the nodes of each block with its number, from 0 on. A graph without attention is left unchanged."""
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
    """The nodes that compute from the embedding, in the graph's order; the embedding's look-up is the first."""
    reached: set[ir.Node] = set()
    line: list[ir.Node] = []
    for node in graph:
        if node.op_type in SHAPES:
            continue
        if _looks_up(node) or any(value.producer() in reached for value in node_reads(node)):
            reached.add(node)
            if node.metadata_props.get(ROLE) not in (LAST_TOKEN, PADDING):
                line.append(node)
    return line


def _looks_up(node: ir.Node) -> bool:
    """Whether tokens enter the graph at this node: as rows of a table, or as embeddings made elsewhere."""
    names = {value.name for value in node.inputs if value is not None and value.is_graph_input()}
    return "inputs_embeds" in names or (TOKENS in names and node.op_type.startswith("Gather"))


def _attention(line: Sequence[ir.Node]) -> list[int]:
    """The place of the first node of each block that reads its caches; without caches, of its attention."""
    first: dict[int, int] = {}
    for place, node in enumerate(line):
        for value in node.inputs:
            if value is not None and value.is_graph_input() and (cache := cache_name(value.name or "")):
                first.setdefault(cache.layer, place)
    plain = [place for place, node in enumerate(line) if node.op_type in ATTENTION]
    return sorted(first.values()) or plain or [place for place, node in enumerate(line) if node.op_type == "Softmax"]


def _passing(line: Sequence[ir.Node]) -> list[int]:
    """For each place of the line: how many values that are made before it are read at it or after it."""
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
    """Where each block begins: at the distance from attention where the fewest values pass; of several, the longest."""
    room = min([attention[0] - 1, *(later - earlier for earlier, later in pairwise(attention))])
    distances = range(max(0, room), -1, -1)
    best = min(distances, key=lambda distance: sum(passing[place - distance] for place in attention))
    return [place - best for place in attention]


def _end(line: Sequence[ir.Node], starts: Sequence[int]) -> int:
    """Where the last block ends: it is as long as the block before it. A single block ends at the head's norm."""
    if len(starts) > 1:
        return min(len(line) - 1, 2 * starts[-1] - starts[-2])
    head = max((place for place, node in enumerate(line) if node.op_type in PRODUCTS), default=len(line))
    norms = [place for place in range(starts[0], head) if "Normalization" in line[place].op_type]
    products = [place for place in range(starts[0], head) if line[place].op_type in PRODUCTS]
    return norms[-1] if norms and products and norms[-1] > products[-1] else head
