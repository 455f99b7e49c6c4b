"""LatentAttention: attention whose keys and values are made from one small latent vector a token (DeepSeek's MLA).

Each head's key is a part made from the latent, and a rotated part that all heads share. Caches hold the expanded keys
and values, and GroupQueryAttention reads them. The other way, a cache of the latents with the matrix that expands them
moved to the query and the result, needs 5 to 40 times less memory, but is slower on processors: onnxruntime 1.32's
kernel takes two to three times as long for one key head of 576 elements that 16 heads share as for 16 of 192, in
prompts of 512 and 2048 tokens, and for a token behind 1024 to 4096 others, also where the caches of all layers do not
fit into the processor's. It also takes a product for each head, which no operator computes with quantized weights.
onnxruntime-genai wants keys and values of one shape, so zeros stand behind the shorter ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims, dims
from drupe_model_builder.parts.attention import OPERATOR, ROTATED_MULTIPLE, PositionScale, gated, scaled_by_position
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.heads import cut, pad
from drupe_model_builder.parts.linear import Linear, can_be_fused, fused, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.split import heads, joined, split
from drupe_model_builder.parts.state import KeyValueState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir


class LatentAttention(Record):
    """Latent attention of one layer.

    name: the prefix of its nodes. layer: its number, which its caches have. rotated, plain: how many elements of each
    head's query and key have a position, and how many have none; in this order. value: elements of a head's value.
    query: of the part's input, or of the query's latent: the rows of each head, `rotated` first. query_latent,
    query_norm: the product that makes this latent, and its norm; None where the query is made from the input.
    latent: the rows of keys' and values' latent, then those of the shared part of all keys. latent_norm: of the latent.
    expansion: from the latent to each head's key (`plain` rows) and value. scale: the factor on query times key.
    rotary: None without one. query_scale: a factor on the query that depends on the position. gate: of each head's
    result, from the part's input: its sigmoid. both_ways: whether it reads later tokens, too.
    """

    name: str
    layer: int
    query: Linear
    latent: Linear
    latent_norm: Norm
    expansion: Linear
    output: Linear
    heads: int
    rotated: int
    plain: int
    value: int
    scale: float
    rotary: Rotary | None
    query_latent: Linear | None = None
    query_norm: Norm | None = None
    query_scale: PositionScale | None = None
    gate: Linear | None = None
    both_ways: bool = False

    @property
    def kv_heads(self) -> int:
        """Each head has keys and values of its own."""
        return self.heads

    @property
    def key(self) -> int:
        """Elements of a head's query and key."""
        return self.rotated + self.plain

    @property
    def head_size(self) -> int:
        """Elements of a head in the operator and in the caches: a multiple of what it can rotate."""
        return -(-max(self.key, self.value) // ROTATED_MULTIPLE) * ROTATED_MULTIPLE

    @property
    def states(self) -> tuple[KeyValueState]:
        """What it keeps of earlier tokens."""
        return (KeyValueState(self.layer, self.heads, self.head_size),)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        query = (self.query_latent, self.query_norm, self.query)
        for part in (*query, self.latent, self.latent_norm, self.expansion, self.gate, self.output):
            if part is not None:
                yield from part.tensors()


def rotates_inside(graph: GraphBuilder, part: LatentAttention) -> bool:
    """Whether the operator rotates the first elements of each head; nodes before it do so otherwise."""
    from drupe_onnx import MICROSOFT, ir

    if part.rotary is None or part.rotated % ROTATED_MULTIPLE:
        return False
    kind, lengths = graph.dtype, ir.DataType.INT32
    types = [kind] * 5 + [lengths, lengths, kind, kind]
    return graph.serves(OPERATOR, *types, domain=MICROSOFT, outputs=[kind] * 3, **_attributes(part, inside=True))


def wants_positions(graph: GraphBuilder, part: LatentAttention) -> bool:
    """Whether nodes outside the operator need the tokens' positions."""
    return part.query_scale is not None or (part.rotary is not None and not rotates_inside(graph, part))


def latent_attention(
    graph: GraphBuilder, part: LatentAttention, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden].

    last_token: the place of the only token that is kept; None for all.
    """
    inside, size, lengths = rotates_inside(graph, part), part.head_size, shared.lengths
    query, latent, turning = _from_input(graph, part, x)
    query = scaled_by_position(graph, part.name, part.query_scale, _query(graph, part, query), shared)
    if part.rotary is not None and not inside:
        query = _rotation(graph, part, part.rotary, query, "Query", part.heads, shared)
        turning = _rotation(graph, part, part.rotary, turning, "Key", 1, shared)
    key, value = _expanded(graph, part, latent, turning)
    padded = [
        lengths.for_attention(
            pad(graph, each, f"{part.name}/Padded{which}", part.heads, held, size, halves=False),
            f"{part.name}/Turned{which}",
        )
        for each, which, held in ((query, "Query", part.key), (key, "Key", part.key), (value, "Value", part.value))
    ]
    inputs: list[ir.Value | None] = [*padded, *shared.states.past(part.states[0])]
    inputs += [lengths.last_keys(), lengths.total_length()]
    if inside and part.rotary is not None:
        inputs += shared.tables.of(part.rotary, part.rotated // 2)
    cache: Dims = [BATCH, part.heads, TOTAL, size]
    kinds: list[tuple[ir.DataType, Dims]] = [(graph.dtype, [BATCH, SEQUENCE, part.heads * size])]
    kinds += [(graph.dtype, cache)] * 2
    attributes = _attributes(part, inside=inside)
    out, *present = required(graph, OPERATOR, inputs, f"{part.name}/{OPERATOR}", kinds, "attention", **attributes)
    shared.states.keep(part.states[0], *present)
    out = lengths.from_attention(out, f"{part.name}/Turned")
    out = cut(graph, out, f"{part.name}/Cut", part.heads, part.value, size, halves=False)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, part.name)
    if part.gate is not None:
        out = gated(graph, part.name, part.gate, part.heads, out, x, last_token)
    return linear(graph, part.output, out, "attention.output")


def _attributes(part: LatentAttention, *, inside: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "num_heads": part.heads,
        "kv_num_heads": part.heads,
        "scale": part.scale,
        "do_rotary": int(inside),
    }
    if inside and part.rotary is not None and part.rotary.interleaved:
        attributes["rotary_interleaved"] = 1
    if part.both_ways:
        attributes["causal"] = 0
    return attributes


def _from_input(graph: GraphBuilder, part: LatentAttention, x: ir.Value) -> Sequence[ir.Value]:
    """What the input gives: the query or its latent, the latent of keys and values, the part that all keys share.

    It is one product where that is the same.
    """
    first = part.query_latent or part.query
    kept = [part.latent.size - part.rotated, part.rotated]
    if can_be_fused([first, part.latent]):
        both = fused(graph, [first, part.latent], f"{part.name}.a_proj", x, "attention.qkv")
        return split(graph, both, [first.size, *kept], part.name)
    latents = linear(graph, part.latent, x, "attention.qkv")
    return [linear(graph, first, x, "attention.qkv"), *split(graph, latents, kept, part.name)]


def _query(graph: GraphBuilder, part: LatentAttention, made: ir.Value) -> ir.Value:
    """The query [batch, sequence, heads * key] from what the input has made: it, or its latent."""
    if part.query_latent is None:
        return made
    normed = made if part.query_norm is None else norm(graph, part.query_norm, made)
    return linear(graph, part.query, normed, "attention.qkv")


def _expanded(
    graph: GraphBuilder, part: LatentAttention, latent: ir.Value, turning: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Key and value of all heads from the latent, and the rotated part that all keys share."""
    count, name = part.heads, part.expansion.name
    made = linear(graph, part.expansion, norm(graph, part.latent_norm, latent), "attention.qkv")
    plain, value = split(graph, heads(graph, made, count, name), [part.plain, part.value], name)
    column = graph.node(
        "Unsqueeze", [turning, graph.integers([2])], f"{name}/Shared", [*dims(turning)[:2], 1, part.rotated]
    )
    each: Dims = [*dims(turning)[:2], count, part.rotated]
    alike = graph.node("Expand", [column, graph.integers([1, 1, count, 1])], f"{name}/OfEachHead", each)
    whole: Dims = [*dims(turning)[:2], count, part.key]
    key = graph.node("Concat", [alike, plain], f"{name}/Key", whole, axis=-1)
    return joined(graph, key, f"{name}/Key"), joined(graph, value, f"{name}/Value")


def _rotation(
    graph: GraphBuilder, part: LatentAttention, rotary: Rotary, x: ir.Value, which: str, count: int, shared: Shared
) -> ir.Value:
    """x with the first elements of each of `count` heads rotated."""
    from drupe_onnx import MICROSOFT

    attributes: dict[str, Any] = {"interleaved": 1} if rotary.interleaved else {}
    if dims(x)[-1] != part.rotated:
        attributes |= {"num_heads": count, "rotary_embedding_dim": part.rotated}
    inputs = [x, shared.lengths.positions, *shared.tables.of(rotary, part.rotated // 2)]
    return graph.node("RotaryEmbedding", inputs, f"{part.name}/Rotate{which}", dims(x), domain=MICROSOFT, **attributes)
