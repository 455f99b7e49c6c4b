"""ExpertAttention: attention whose queries and results are made by experts that each token chooses (JetMoE's MoA).

All experts read the same keys and values. Each expert that a token runs gives a query for each head of keys, and turns
what these queries read into a hidden state; the router's weights sum these up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims, dims
from drupe_model_builder.parts.attention import HEAD_MULTIPLE, OPERATOR
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.experts import Matrices, refuse_unserved, stacked
from drupe_model_builder.parts.heads import cut, pad
from drupe_model_builder.parts.linear import Linear, fused
from drupe_model_builder.parts.lone_experts import ALONE, identities, lone_experts
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.router import Router, weights_of_chosen
from drupe_model_builder.parts.slots import by_token, in_slots, one_hot, weight_column
from drupe_model_builder.parts.split import split
from drupe_model_builder.parts.state import KeyValueState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir


class ExpertAttention(Record):
    """Attention of one layer with experts.

    name: the prefix of its nodes. layer: its number, which its caches have. query, output: of each expert. output_bias:
    a tensor [hidden], which is added to the sum. kv_heads: of keys, values and each expert's query. scale: the factor
    on query times key. both_ways: whether it reads later tokens, too.
    """

    name: str
    layer: int
    router: Router
    query: Matrices
    key: Linear
    value: Linear
    output: Matrices
    output_bias: str
    kv_heads: int
    head_dim: int
    scale: float
    rotary: Rotary
    both_ways: bool = False

    @property
    def heads(self) -> int:
        """How many queries a token has."""
        return self.kv_heads * self.router.chosen

    @property
    def head_size(self) -> int:
        """Elements of a head in the operator and in the caches: a multiple of what it takes."""
        return -(-self.head_dim // HEAD_MULTIPLE) * HEAD_MULTIPLE

    @property
    def states(self) -> tuple[KeyValueState]:
        """What it keeps of earlier tokens."""
        return (KeyValueState(self.layer, self.kv_heads, self.head_size),)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.router, self.query, self.key, self.value, self.output):
            yield from part.tensors()
        yield self.output_bias, (self.output.size,)


def expert_attention(
    graph: GraphBuilder, part: ExpertAttention, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all.

    Raises Lacking where the target has no operator for it, ModelError where the queries are too wide.
    """
    hidden, wide = dims(x)[-1], part.kv_heads * part.head_dim
    if not isinstance(hidden, int) or wide > hidden:
        raise ModelError(
            f"queries of {wide} values that experts make are not supported: more than the hidden size {hidden}",
            cure="choose another model",
        )
    refuse_unserved(graph, ALONE)
    weights, places = weights_of_chosen(graph, part.router, x)
    query = _query(graph, part, x, places)
    keys = fused(graph, [part.key, part.value], f"{part.name}.kv_proj", x, "attention.qkv")
    key, value = split(graph, keys, [part.key.size, part.value.size], part.name)
    query = _rotated(graph, part, query, "Query", part.heads, shared)
    key = _rotated(graph, part, key, "Key", part.kv_heads, shared)
    out = _attended(graph, part, {"Query": query, "Key": key, "Value": value}, shared)
    if last_token is not None:
        out, weights, places, x = (
            drop_all_but_last(graph, each, last_token, f"{part.name}.{called}")
            for each, called in ((out, "out"), (weights, "weights"), (places, "places"), (x, "input"))
        )
    return _output(graph, part, out, x, weights, places)


def _query(graph: GraphBuilder, part: ExpertAttention, x: ir.Value, places: ir.Value) -> ir.Value:
    """The queries [batch, sequence, heads * head_dim]: those of one head of keys one after the other."""
    name, chosen, (batch, sequence, hidden) = part.name, part.router.chosen, dims(x)
    wide = part.query.size
    column = graph.node("Unsqueeze", [x, graph.integers([2])], f"{name}/Column", [batch, sequence, 1, hidden])
    copies: Dims = [batch, sequence, chosen, hidden]
    rows = graph.node("Expand", [column, graph.integers([1, 1, chosen, 1])], f"{name}/Copies", copies)
    logits = one_hot(graph, places, part.router.experts, f"{name}.query")
    matrices = stacked(graph, f"{name}.query", [each.expression(graph.weights) for each in part.query.rows])
    pair = (matrices, identities(graph, part.router, hidden, wide))
    made = lone_experts(graph, part.router, f"{name}.query", in_slots(graph, rows, name), logits, pair)
    made = by_token(graph, made, x, chosen, f"{name}.query")
    if wide != hidden:
        bounds = [graph.integers([each]) for each in (0, wide, 3)]
        made = graph.node("Slice", [made, *bounds], f"{name}/Queries", [batch, sequence, chosen, wide])
    return _turned(graph, part, made, f"{name}/ByHead", chosen, part.kv_heads)


def _output(
    graph: GraphBuilder, part: ExpertAttention, out: ir.Value, x: ir.Value, weights: ir.Value, places: ir.Value
) -> ir.Value:
    """The sum of what the chosen experts make of their queries' results. x: what the attention has read."""
    name, chosen, (batch, sequence, hidden) = f"{part.name}.output", part.router.chosen, dims(x)
    wide = part.query.size
    apart = _turned(graph, part, out, f"{name}/ByExpert", part.kv_heads, chosen)
    copies: Dims = [batch, sequence, chosen, wide]
    rows = graph.node("Reshape", [apart, graph.integers([0, 0, chosen, wide])], f"{name}/Rows", copies)
    assert isinstance(hidden, int)
    if wide != hidden:
        sizes = graph.integers([0] * 7 + [hidden - wide])
        rows = graph.node("Pad", [rows, sizes], f"{name}/Pad", [batch, sequence, chosen, hidden])
    logits = one_hot(graph, places, part.router.experts, name)
    matrices = stacked(graph, name, [each.expression(graph.weights) for each in part.output.rows])
    pair = (identities(graph, part.router, wide, hidden), matrices)
    made = lone_experts(graph, part.router, name, in_slots(graph, rows, name), logits, pair)
    made = by_token(graph, made, x, chosen, name)
    weighted = graph.node("Mul", [made, weight_column(graph, weights, name)], f"{name}/Weighted", dims(made))
    total = graph.node("ReduceSum", [weighted, graph.integers([2])], f"{name}/Sum", dims(x), keepdims=0)
    return graph.node("Add", [total, graph.vector(part.output_bias)], f"{name}/Add", dims(x))


def _turned(graph: GraphBuilder, part: ExpertAttention, x: ir.Value, name: str, first: int, second: int) -> ir.Value:
    """x whose last elements are [first, second, head_dim] as [batch, sequence, second * first * head_dim]."""
    size, before = part.head_dim, dims(x)[:2]
    shape = graph.integers([0, 0, first, second, size])
    apart = graph.node("Reshape", [x, shape], f"{name}/Apart", [*before, first, second, size])
    turned = graph.node("Transpose", [apart], f"{name}/Turned", [*before, second, first, size], perm=[0, 1, 3, 2, 4])
    joined = first * second * size
    return graph.node("Reshape", [turned, graph.integers([0, 0, joined])], f"{name}/Joined", [*before, joined])


def _rotated(
    graph: GraphBuilder, part: ExpertAttention, x: ir.Value, which: str, heads: int, shared: Shared
) -> ir.Value:
    from drupe_onnx import MICROSOFT

    rotary = part.rotary
    attributes: dict[str, Any] = {"num_heads": heads, "rotary_embedding_dim": rotary.width}
    attributes = attributes if rotary.width != part.head_dim else {}
    inputs = [x, shared.lengths.positions, *shared.tables.of(rotary, rotary.width // 2)]
    return graph.node("RotaryEmbedding", inputs, f"{part.name}/Rotate{which}", dims(x), domain=MICROSOFT, **attributes)


def _attended(graph: GraphBuilder, part: ExpertAttention, given: dict[str, ir.Value], shared: Shared) -> ir.Value:
    """What the queries read: [batch, sequence, heads * head_dim]."""
    name, size, lengths = part.name, part.head_size, shared.lengths
    counts = {"Query": part.heads, "Key": part.kv_heads, "Value": part.kv_heads}
    padded = [
        lengths.for_attention(
            pad(graph, each, f"{name}/Padded{which}", counts[which], part.head_dim, size, halves=False),
            f"{name}/Turned{which}",
        )
        for which, each in given.items()
    ]
    inputs = [*padded, *shared.states.past(part.states[0]), lengths.last_keys(), lengths.total_length()]
    cache: Dims = [BATCH, part.kv_heads, TOTAL, size]
    kinds: list[tuple[ir.DataType, Dims]] = [(graph.dtype, [BATCH, SEQUENCE, part.heads * size])]
    kinds += [(graph.dtype, cache)] * 2
    attributes: dict[str, Any] = {
        "num_heads": part.heads,
        "kv_num_heads": part.kv_heads,
        "scale": part.scale,
        "do_rotary": 0,
    }
    if part.both_ways:
        attributes["causal"] = 0
    out, *present = required(graph, OPERATOR, inputs, f"{name}/{OPERATOR}", kinds, "attention", **attributes)
    shared.states.keep(part.states[0], *present)
    out = lengths.from_attention(out, f"{name}/Turned")
    return cut(graph, out, f"{name}/Cut", part.heads, part.head_dim, size, halves=False)
