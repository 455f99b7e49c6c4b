"""Marking a decoder's graph: the roles of products, the blocks of nodes, and the nodes that drop all but one token.

Names of nodes differ between exporters, so only the names of the graph's inputs and outputs are used. A product is
recognised by its connections: attention reads the key-value caches, and occurs once in each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from drupe_decoding import DecoderPorts
from drupe_layerwise import mark_blocks
from drupe_nbits import EMBEDDING, HEAD
from drupe_onnx import BLOCK, LAST_TOKEN, ROLE, Array, ir
from drupe_onnx.editing import Tape, shared_initializer
from drupe_onnx_models.constants import attribute, integers_of, is_constant, sizes_in

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "MatMulNBits"})
LOOK_UPS = frozenset({"Gather", "GatherBlockQuantized"})
ATTENTION = frozenset(
    {"GroupQueryAttention", "MultiHeadAttention", "Attention", "PagedAttention", "SparseAttention", "Softmax"}
)
ACTIVATIONS = frozenset(
    {
        "BiasGelu", "Clip", "Elu", "Erf", "FastGelu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish",
        "QuickGelu", "Relu", "Sigmoid", "Silu", "Softplus", "Swish", "Tanh",
    }
)  # fmt: skip
BEHIND_HEAD = frozenset({"Add", "Cast", "Clip", "Concat", "Div", "Mul", "Reshape", "Sub", "Tanh", "Where", "Slice"})
"""Operators that may stand between the product with the head's matrix and the logits."""
SHAPES = frozenset({"Shape", "Size"})
"""Operators that pass on the size of a value, but not its content."""
Step = Callable[[ir.Node], Iterable[ir.Node]]
DEFAULTS = (None, None, None, [1])
"""Inputs of a Slice after its data. If axes are given, only steps may be left out."""
END = (1 << 31) - 1
"""An end of a slice that is beyond the end of every tensor."""


def mark_decoder(graph: ir.Graph, ports: DecoderPorts) -> None:
    """Mark a decoder's nodes; existing marks are kept."""
    logits = next(value for value in graph.outputs if value.name == ports.logits.name)
    _mark_embedding(graph, next(iter(ports.plain)))
    _mark_last_token(graph, logits)
    if not any(BLOCK in node.metadata_props for node in graph):
        mark_blocks(graph)
    _mark(_head(logits), HEAD)
    caches = {cache.present for cache in ports.caches}
    for nodes in _blocks(graph):
        for node, role in _Block(nodes, caches).roles():
            _mark(node, role)


def _mark(node: ir.Node | None, role: str) -> None:
    if node is not None:
        node.metadata_props.setdefault(ROLE, role)


def _blocks(graph: ir.Graph) -> list[list[ir.Node]]:
    blocks: dict[str, list[ir.Node]] = {}
    for node in graph:
        if (number := node.metadata_props.get(BLOCK)) is not None:
            blocks.setdefault(number, []).append(node)
    return list(blocks.values())


def _is_product(node: ir.Node) -> bool:
    """Whether a node multiplies with weights."""
    return node.op_type in PRODUCTS and is_constant(node.inputs[1])


# Before and behind the blocks


def _mark_embedding(graph: ir.Graph, tokens: str) -> None:
    """Mark the node that looks tokens up. If its tokens reach it unchanged, it reads the graph's input directly."""
    given = next(value for value in graph.inputs if value.name == tokens)
    for node in graph:
        if node.op_type in LOOK_UPS and is_constant(node.inputs[0]) and _unchanged(node.inputs[1]) is given:
            _mark(node, EMBEDDING)
            node.replace_input_with(1, given)


def _unchanged(value: ir.Value | None) -> ir.Value | None:
    """The value before nodes that change neither its shape nor its whole numbers."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Reshape" and not _keeps_shape(node):
            break
        if node.op_type not in ("Reshape", "Identity", "Cast"):
            break
        value = node.inputs[0]
    return value


def _keeps_shape(node: ir.Node) -> bool:
    """Whether a Reshape keeps the size of each axis."""
    given, sizes = node.inputs[0], sizes_in(node.inputs[1])
    if given is None or given.shape is None or sizes is None or len(sizes) != len(given.shape):
        return False
    kept = [size == (given, axis) or size == given.shape[axis] for axis, size in enumerate(sizes)]
    return all(same or size == -1 for same, size in zip(kept, sizes, strict=True)) and sizes.count(-1) <= 1


def _head(logits: ir.Value) -> ir.Node | None:
    """The product that makes the logits."""
    node = logits.producer()
    while node is not None and not _is_product(node) and node.op_type in BEHIND_HEAD:
        computed = [value for value in node.inputs if value is not None and not is_constant(value)]
        node = computed[0].producer() if computed else None
    return node if node is not None and _is_product(node) else None


def _mark_last_token(graph: ir.Graph, logits: ir.Value) -> None:
    """Mark the nodes after the last attention that drop all tokens but the last."""
    start = logits.producer()
    if start is None or any(node.metadata_props.get(ROLE) == LAST_TOKEN for node in graph):
        return
    for node in [start, *_reach(start, _makers, lambda each: each.op_type in ATTENTION)]:
        if _takes_last(node):
            _mark(node, LAST_TOKEN)
        elif (behind := _puts_back(node)) is not None:
            _replace_by_slice(graph, node, behind)
    dropped = any(node.metadata_props.get(ROLE) == LAST_TOKEN for node in graph)
    if dropped and logits.shape is not None and len(logits.shape) == 3:
        logits.shape = ir.Shape(
            [logits.shape[0], 1, logits.shape[2]]
        )  # runtimes allocate memory for the declared shape


def _takes_last(node: ir.Node) -> bool:
    """Whether a node gives [batch, 1, features] of the last token, of [batch, sequence, features]."""
    if not _is_sequence(node.inputs[0] if node.inputs else None):
        return False
    if node.op_type == "Slice":
        given = [integers_of(value) for value in node.inputs[1:]]
        start, stop, axes, steps = (*given, *DEFAULTS[len(given) :])
        last = start == [-1] and stop is not None and stop[0] >= END
        return last and axes in ([1], [-2]) and steps == [1]
    return node.op_type == "Gather" and _takes_place(node) and _rank(node.inputs[1]) == 1


def _puts_back(node: ir.Node) -> ir.Node | None:
    """The Unsqueeze after a Gather of the last token's [batch, features], if the two together equal a Slice."""
    if node.op_type != "Gather" or not _is_sequence(node.inputs[0]) or not _takes_place(node) or _rank(node.inputs[1]):
        return None
    followers = list(node.outputs[0].consumers())
    if len(followers) != 1 or followers[0].op_type != "Unsqueeze" or len(followers[0].inputs) < 2:
        return None
    return followers[0] if integers_of(followers[0].inputs[1]) == [1] else None


def _takes_place(node: ir.Node) -> bool:
    """Whether a Gather takes the last place of the second axis."""
    return attribute(node, "axis", 0) in (1, -2) and integers_of(node.inputs[1]) == [-1]


def _is_sequence(value: ir.Value | None) -> bool:
    return _rank(value) == 3


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _replace_by_slice(graph: ir.Graph, node: ir.Node, behind: ir.Node) -> None:
    """Replace two nodes that cannot be marked by one that can."""
    old, name = behind.outputs[0], f"{behind.name or node.name}/LastToken"
    bounds = [
        shared_initializer(graph, f"{name}/{label}", Array(np.array([value], np.int64)))
        for label, value in (("start", -1), ("stop", END), ("axis", 1))
    ]
    tape = Tape({ROLE: LAST_TOKEN})
    new = tape.node("Slice", [node.inputs[0], *bounds], name, old.dtype, old.shape)
    graph.insert_before(behind, tape.nodes)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove([behind, node], safe=True)


# In the blocks


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that a node computes from."""
    for value in node.inputs:
        if value is not None and (maker := value.producer()) is not None:
            yield maker


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that compute from a node."""
    for value in node.outputs:
        yield from value.consumers()


def _reach(start: ir.Node, step: Step, stop: Callable[[ir.Node], bool]) -> list[ir.Node]:
    """The nodes that are reached from a node, including those where the search stops. Shapes are not followed."""
    found: dict[ir.Node, None] = {}
    waiting = list(step(start))
    while waiting:
        node = waiting.pop()
        if node not in found and node.op_type not in SHAPES:
            found[node] = None
            if not stop(node):
                waiting += step(node)
    return list(found)


class _Block:
    """The products of one block and their roles."""

    def __init__(self, nodes: Iterable[ir.Node], caches: set[str]) -> None:
        self._inside = set(nodes)
        self._caches = caches
        self._products = [node for node in nodes if _is_product(node)]

    def roles(self) -> Iterator[tuple[ir.Node, str]]:
        """Each product with its role in the model builder's terms."""
        after = {node: self._ahead(node) for node in self._products}
        before = {node: self._back(node) for node in self._products}
        rest = []
        for node in self._products:
            if any(map(self._attends, after[node])):
                yield node, "attention.qkv"
            elif any(each.op_type in ATTENTION for each in before[node]):
                yield node, "attention.output"
            else:
                rest.append(node)
        for node in rest:
            if any(each in rest for each in before[node]):
                yield node, "mlp.down"
            elif len(rest) > 2 and any(each.op_type in ACTIVATIONS for each in after[node]):
                yield node, "mlp.gate"
            else:
                yield node, "mlp.up"

    def _attends(self, node: ir.Node) -> bool:
        return node.op_type in ATTENTION or any(value.name in self._caches for value in node.outputs)

    def _ahead(self, node: ir.Node) -> list[ir.Node]:
        return _reach(node, lambda each: filter(self._inside.__contains__, _readers(each)), self._ends)

    def _back(self, node: ir.Node) -> list[ir.Node]:
        return _reach(node, lambda each: filter(self._inside.__contains__, _makers(each)), self._ends)

    def _ends(self, node: ir.Node) -> bool:
        return _is_product(node) or node.op_type in ATTENTION
