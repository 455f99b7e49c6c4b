"""Segments: the parts of a decoder's graph, the nodes of each, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from drupe.api import ModelError, Record
from drupe_decoding import HIDDEN_STATES, LOGITS, cache_name
from drupe_onnx import BLOCK, LAST_TOKEN, POSITIONS, ROLE, ir

CONSTANT = -1
"""The part of nodes that compute from weights and constants alone: each segment that reads them computes them."""


class Segment(Record):
    """One part of the graph: the nodes before the blocks, one block, or the nodes after the blocks.

    index: among all segments. block: the block's number in the graph's metadata; None before and after the blocks.
    """

    index: int
    block: int | None
    graph: ir.Graph

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes that the segment has now, in the graph's order."""
        return parts_of(self.graph).nodes(self.index)


def segments_of(graph: ir.Graph) -> list[Segment]:
    """Every segment of a graph whose nodes are marked. Raises ModelError where no node is marked."""
    numbers = _numbers(graph)
    if not numbers:
        raise ModelError("no decoder blocks were found in the graph")
    return [Segment(index, block, graph) for index, block in enumerate([None, *numbers, None])]


def is_marked(graph: ir.Graph) -> bool:
    """Whether the graph's nodes are marked with their blocks."""
    return bool(_numbers(graph))


def hidden_states(segment: Segment) -> list[str]:
    """The names of the float values that a segment makes for later segments; a block reads the sum of them.

    Tables of positions, and caches that later blocks read, are not among them.
    """
    parts = parts_of(segment.graph)
    kept = (value for value in parts.kept(segment.index) if parts.part(value) == segment.index)
    states = (value for value in kept if not _of_positions(value) and not cache_name(value.name or ""))
    return [whole(value).name or "" for value in states if value.dtype is not None and value.dtype.is_floating_point()]


def _of_positions(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.metadata_props.get(ROLE) == POSITIONS


_DIVISION = "drupe.layerwise.division"


def parts_of(graph: ir.Graph) -> Parts:
    """The division of a graph as it is now. The last division is reused where the graph has not changed since.

    Dividing a deep graph takes long compared with running a block, and each block asks several times. Graphs inside
    nodes are not compared, because no pass changes them.
    """
    nodes = [(node, node.inputs, node.metadata_props.get(BLOCK), node.metadata_props.get(ROLE)) for node in graph]
    now = (nodes, list(graph.outputs))
    made: tuple[object, Parts] | None = graph.meta.get(_DIVISION)
    if made is None or made[0] != now:
        made = graph.meta[_DIVISION] = (now, Parts(graph))
    return made[1]


class Parts:
    """The division of a graph into segments, as it was when this object was made.

    A marked node is in its block. An unmarked node that a block computes from is in the segment where the last of its
    inputs is made. Any other unmarked node that computes from a block is in the segment after the blocks.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._places = {number: place for place, number in enumerate(_numbers(graph), 1)}
        self._part = self._divided()
        self._needed = _needed(graph)

    def nodes(self, index: int) -> list[ir.Node]:
        """The nodes of a segment. A node that computes from constants alone is in the first segment that reads it."""
        return [node for node, part in self._part.items() if (part if part != CONSTANT else self._home(node)) == index]

    def inputs(self, index: int) -> list[ir.Value]:
        """The values that a segment reads but does not make: inputs of the graph and values of earlier segments."""
        values = (value for node in self.nodes(index) for value in node_reads(node))
        return list(dict.fromkeys(value for value in values if self._comes_in(value, index)))

    def kept(self, index: int) -> list[ir.Value]:
        """The values made in segment `index` and before it that later segments read."""
        return list(
            dict.fromkeys(
                value
                for node, part in self._part.items()
                if part > index and node in self._needed
                for value in node_reads(node)
                if value.producer() is not None and CONSTANT < self.part(value) <= index
            )
        )

    def behind(self, index: int, values: Iterable[ir.Value]) -> set[ir.Node]:
        """The nodes of a segment that these values are computed by."""
        found: set[ir.Node] = set()
        waiting = list(values)
        while waiting:
            node = waiting.pop().producer()
            if node is not None and node not in found and self._part.get(node) == index:
                found.add(node)
                waiting += node_reads(node)
        return found

    def crossing(self, done: Collection[ir.Node]) -> list[ir.Value]:
        """The values that these nodes make for other nodes, without caches."""
        others = (node for node in self._part if node in self._needed and node not in done)
        values = (value for node in others for value in node_reads(node))
        return list(dict.fromkeys(value for value in values if value.producer() in done))

    def part(self, value: ir.Value) -> int:
        """The index of the segment that makes a value; CONSTANT for a value that does not depend on the tokens."""
        producer = value.producer()
        if producer is None:
            return 0 if self._varies(value) else CONSTANT
        return self._part[producer]

    def _comes_in(self, value: ir.Value, index: int) -> bool:
        return self._varies(value) and (value.producer() is None or self.part(value) != index)

    def _varies(self, value: ir.Value) -> bool:
        """Whether a value depends on the graph's inputs."""
        producer = value.producer()
        if producer is not None:
            return self._part[producer] != CONSTANT
        return value.is_graph_input() and not value.is_initializer()

    def _home(self, node: ir.Node) -> int:
        """The segment of a node that computes from constants alone: the marked one, or that of its first reader."""
        if (mark := self._mark(node)) is not None:
            return mark
        readers = [reader for output in node.outputs for reader in output.consumers() if reader in self._part]
        homes = (self._part[each] if self._part[each] != CONSTANT else self._home(each) for each in readers)
        return min(homes, default=0)

    def _mark(self, node: ir.Node) -> int | None:
        text = node.metadata_props.get(BLOCK)
        return None if text is None else self._places[int(text)]

    def _divided(self) -> dict[ir.Node, int]:
        """The part of each node, in the graph's order."""
        self._part = {}
        for node in self.graph:
            reached = max((self.part(value) for value in node_reads(node)), default=CONSTANT)
            mark = self._mark(node)
            if mark is not None and reached > mark:
                raise ModelError(f"'{node.name}' is in block {node.metadata_props[BLOCK]} and reads from a later one")
            self._part[node] = reached if mark is None or reached == CONSTANT else mark
        leading = self._leading()
        behind = len(self._places) + 1
        return {
            node: behind if part > 0 and self._mark(node) is None and node not in leading else part
            for node, part in self._part.items()
        }

    def _leading(self) -> set[ir.Node]:
        """The nodes that are in a block or that a block computes from."""
        leading: set[ir.Node] = set()
        for node in reversed(list(self.graph)):
            if self._mark(node) is not None or node in leading:
                leading.add(node)
                leading.update(producer for value in node_reads(node) if (producer := value.producer()) is not None)
        return leading


def nodes_behind(values: Iterable[ir.Value]) -> set[ir.Node]:
    """All nodes of a graph that these values are computed by."""
    found: set[ir.Node] = set()
    waiting = list(values)
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            waiting += node_reads(node)
    return found


def node_reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node computes from, those that graphs inside it capture included.

    Nodes that drop all but the last token are removed before anything runs, so their index inputs do not count.
    """
    if node.metadata_props.get(ROLE) == LAST_TOKEN:
        yield from (value for value in node.inputs[:1] if value is not None)
        return
    yield from (value for value in node.inputs if value is not None)
    for inner in _inner_graphs(node):
        for each in ir.traversal.RecursiveGraphIterator(inner):
            yield from (value for value in each.inputs if value is not None and value.graph is node.graph)


def _inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def whole(value: ir.Value) -> ir.Value:
    """The value before all tokens but the last were dropped; the value itself where none are dropped."""
    while (node := value.producer()) is not None and node.metadata_props.get(ROLE) == LAST_TOKEN:
        source = node.inputs[0]
        assert source is not None
        value = source
    return value


def result_of(graph: ir.Graph) -> ir.Value:
    """The main output of the graph: logits, hidden states, or the only output that is not a cache."""
    outputs: Mapping[str, ir.Value] = {value.name or "": value for value in _results(graph)}
    for name in (LOGITS, HIDDEN_STATES):
        if name in outputs:
            return outputs[name]
    if len(outputs) != 1:
        raise ModelError(f"the graph has no output 'logits', but several others: {', '.join(outputs)}")
    return next(iter(outputs.values()))


def has_head(graph: ir.Graph) -> bool:
    """Whether the graph's main output are logits, not hidden states."""
    return result_of(graph).name != HIDDEN_STATES


def _results(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.outputs if not cache_name(value.name or "")]


def _numbers(graph: ir.Graph) -> list[int]:
    return sorted({int(node.metadata_props[BLOCK]) for node in graph if BLOCK in node.metadata_props})


def _needed(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that the graph's outputs other than caches are computed from."""
    needed: set[ir.Node] = set()
    waiting = [node for value in _results(graph) if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [producer for value in node_reads(node) if (producer := value.producer()) is not None]
    return needed
