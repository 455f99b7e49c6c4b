"""Attention: projections, norms of query and key, and rotary embedding around GroupQueryAttention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims, dims
from drupe_model_builder.parts.difference import Difference, difference
from drupe_model_builder.parts.distance import Distance
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.heads import cut, pad
from drupe_model_builder.parts.key_bias import KeyBias, key_with_bias, query_for_bias
from drupe_model_builder.parts.linear import Linear, can_be_fused, fused, linear
from drupe_model_builder.parts.norm import Norm, gamma, norm
from drupe_model_builder.parts.required import Lacking
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.split import heads, joined
from drupe_model_builder.parts.state import KeyValueState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR = "GroupQueryAttention"
# Multiples that the size of a head must be for GroupQueryAttention, on every provider, and the rotated part of one.
HEAD_MULTIPLE, ROTATED_MULTIPLE = 8, 16


class PositionScale(Record):
    """A factor on the query at position p: 1 + beta * ln(1 + floor((p + shift) / every)).

    Ministral 3 counts positions from 0, Llama 4 from 1.
    """

    beta: float
    every: int
    shift: int = 0


class Attention(Record):
    """Grouped-query attention of one layer.

    name: the prefix of its nodes. layer: its number, which its caches have. both_ways: whether it reads later tokens,
    too. window: how many tokens it reads, including the current one; to each side where it reads both ways; None for
    all. scale: the factor on query times key. rotary: None without one.
    query_norm, key_norm: RMS norms or LayerNorms of query and key. norm_span: over each "head", or over the "whole"
    projection. norm_after_rotary: whether they come after the rotation. softcap: products of query and key become
    softcap * tanh(product / softcap); 0 for none. sinks: a tensor with one logit a head, which takes part in the
    softmax and adds nothing. output_norm: before `output`, as BitNet has one. value_norm: of each head's value. gate:
    of the result before `output`, from the part's input: one value an element, or one a head; gate_activation: what
    opens it. distance: a bias on products of query and key. chunk: how many tokens a chunk has, of which each token
    reads its own only; None for one chunk. only_earlier: whether it reads no later tokens whatever `is_causal` says.
    value_dim: elements of a head's value where they are not `head_dim`; onnxruntime-genai wants keys and values of one
    shape, so zeros stand behind the shorter ones. key_bias: of each key on its products. difference: of two halves of
    the heads, before the gate.
    """

    name: str
    layer: int
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rotary: Rotary | None = None
    window: int | None = None
    both_ways: bool = False
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    norm_span: Literal["head", "whole"] = "head"
    norm_after_rotary: bool = False
    softcap: float = 0.0
    sinks: str | None = None
    output_norm: Norm | None = None
    query_scale: PositionScale | None = None
    value_norm: Norm | None = None
    gate: Linear | None = None
    gate_activation: Literal["Sigmoid", "Softplus"] = "Sigmoid"
    distance: Distance | None = None
    chunk: int | None = None
    only_earlier: bool = False
    value_dim: int | None = None
    difference: Difference | None = None
    key_bias: KeyBias | None = None

    @property
    def states(self) -> tuple[KeyValueState]:
        """What it keeps of earlier tokens."""
        return (KeyValueState(self.layer, self.kv_heads, self.head_dim),)

    @property
    def value_size(self) -> int:
        """Elements of a head's value."""
        return self.value_dim or self.head_dim

    @property
    def key_size(self) -> int:
        """Elements of a head's query and key in the operator."""
        return self.head_dim + (1 if self.key_bias else 0)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        norms = (self.query_norm, self.key_norm, self.value_norm, self.output_norm)
        for part in (self.query, self.key, self.value, self.gate, self.difference, self.key_bias, self.output, *norms):
            if part is not None:
                yield from part.tensors()
        if self.sinks is not None:
            yield self.sinks, (self.heads,)


class AttentionForm(Record):
    """What GroupQueryAttention computes itself on a target. Nodes before it compute the rest.

    packed: takes query, key and value as one input. rotates: applies the rotary embedding. norms: applies q/k norms.
    head_size: elements of a head in the operator and in the caches. Where it is more than the model's, zeros stand in
    each head that change no product.
    """

    packed: bool
    rotates: bool
    norms: bool
    head_size: int


def choose_form(graph: GraphBuilder, part: Attention) -> AttentionForm:
    """The form in which the operator computes most. Raises Lacking where the target supports no form."""
    from drupe_onnx import MICROSOFT, element_name

    for form in _forms(graph, part):
        types = _input_types(graph, part, form)
        attributes = _attributes(part, form)
        if graph.serves(OPERATOR, *types, domain=MICROSOFT, outputs=[graph.dtype] * 3, **attributes):
            return form
    if (part.key_size % HEAD_MULTIPLE or part.value_size != part.head_dim) and not _pads(graph):
        needed_by = (
            f"heads of {part.head_dim} elements need: {OPERATOR} takes multiples of {HEAD_MULTIPLE}"
            if part.value_size == part.head_dim
            else f"keys of {part.head_dim} and values of {part.value_size} elements need"
        )
        raise Lacking(f"has no Pad for {element_name(graph.dtype)} activations, which {needed_by}")
    raise Lacking(f"has no {OPERATOR} for {element_name(graph.dtype)} activations{_wanted(part)}")


def needs_positions(part: Attention, form: AttentionForm) -> bool:
    """Whether nodes outside the operator need the tokens' positions."""
    outside = part.rotary is not None and not form.rotates
    return outside or part.query_scale is not None or part.chunk is not None


def attention(
    graph: GraphBuilder,
    part: Attention,
    form: AttentionForm,
    x: ir.Value,
    shared: Shared,
    last_token: ir.Value | None,
) -> ir.Value:
    """The result for x [batch, sequence, hidden].

    last_token: the place of the only token that is kept; None for all.
    """
    from drupe_onnx import MICROSOFT

    shape: Dims = [BATCH, part.kv_heads, TOTAL, form.head_size]
    kind = graph.dtype
    out, key, value = graph.nodes(
        OPERATOR,
        _inputs(graph, part, form, _projected(graph, part, form, x, shared), shared),
        f"{part.name}/{OPERATOR}",
        [(kind, [BATCH, SEQUENCE, part.heads * form.head_size]), (kind, shape), (kind, shape)],
        domain=MICROSOFT,
        **_attributes(part, form),
    )
    shared.states.keep(part.states[0], key, value)
    halves = _in_halves(part, form) and part.value_dim is None
    out = cut(graph, out, f"{part.name}/Cut", part.heads, part.value_size, form.head_size, halves=halves)
    out = shared.lengths.from_attention(out, f"{part.name}/Turned")
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, part.name)
    if part.difference is not None:
        out = difference(graph, part.difference, out, part.heads)
    if part.gate is not None:
        out = gated(graph, part.name, part.gate, part.heads, out, x, last_token, part.gate_activation)
    if part.output_norm is not None:
        out = norm(graph, part.output_norm, out)
    return linear(graph, part.output, out, "attention.output")


def _forms(graph: GraphBuilder, part: Attention) -> Iterator[AttentionForm]:
    """The forms that give what the part says, the one in which the operator computes most first.

    A head that fits the operator's multiples is not padded.
    """
    size, values = part.key_size, part.value_size
    plain = _multiple(max(size, values), HEAD_MULTIPLE)
    if not plain == size == values and not _pads(graph):
        return
    normed = part.query_norm is not None or part.key_norm is not None
    # A norm, a rotation or a factor before attention goes to query and key separately, so they cannot be packed then.
    # Zeros behind values do not go to query and key.
    apart = normed or _alters(part) or values != size or not can_be_fused([part.query, part.key, part.value])
    inside = values <= size and part.key_bias is None
    if part.rotary is not None and inside and not (part.norm_after_rotary and normed):
        for rotated in _rotated_sizes(part, part.rotary, plain):
            if normed and _norms_inside(part) and not _alters(part) and rotated == size == values:
                yield AttentionForm(True, True, True, rotated)
            if not apart:
                yield AttentionForm(True, True, False, rotated)
            yield AttentionForm(False, True, False, rotated)
    elif part.rotary is None and not apart:
        yield AttentionForm(True, False, False, plain)
    yield AttentionForm(False, False, False, plain)


def _rotated_sizes(part: Attention, rotary: Rotary, plain: int) -> Iterator[int]:
    """The sizes of a head with which the operator's own rotation fits: it rotates multiples of 16 elements."""
    if part.head_dim % ROTATED_MULTIPLE == 0 and rotary.width % ROTATED_MULTIPLE == 0:
        yield part.head_dim
    elif plain != part.head_dim and rotary.width == part.head_dim:
        yield _multiple(part.head_dim, ROTATED_MULTIPLE)


def _pads(graph: GraphBuilder) -> bool:
    from drupe_onnx import ir

    return graph.serves("Pad", graph.dtype, ir.DataType.INT64, outputs=[graph.dtype])


def _multiple(size: int, of: int) -> int:
    """The smallest multiple that is not less than `size`."""
    return -(-size // of) * of


def _pairs(rotary: Rotary, part: Attention, form: AttentionForm) -> int:
    """The width of the tables for the operator: it rotates the whole head where the model does."""
    return (form.head_size if rotary.width == part.head_dim else rotary.width) // 2


def _in_halves(part: Attention, form: AttentionForm) -> bool:
    """Whether zeros stand behind both halves of a head, because halves are what the operator rotates."""
    return form.rotates and part.rotary is not None and not part.rotary.interleaved


def _padded(
    graph: GraphBuilder, part: Attention, form: AttentionForm, x: ir.Value, which: str, heads: int, size: int
) -> ir.Value:
    """x [batch, sequence, heads * size] with heads of the operator's size."""
    halves = _in_halves(part, form)
    return pad(graph, x, f"{part.name}/Padded{which}", heads, size, form.head_size, halves=halves)


def _padded_value(graph: GraphBuilder, part: Attention, form: AttentionForm, value: ir.Value) -> ir.Value:
    if part.value_dim is None:
        return _padded(graph, part, form, value, "Value", part.kv_heads, part.head_dim)
    name = f"{part.name}/PaddedValue"
    return pad(graph, value, name, part.kv_heads, part.value_dim, form.head_size, halves=False)


def _alters(part: Attention) -> bool:
    """Whether query or value are changed, apart from norms of query and key, before the operator reads them."""
    return part.query_scale is not None or part.value_norm is not None


def _norms_inside(part: Attention) -> bool:
    """Whether the operator's own norms fit: RMS norms of each head's query and key, with one epsilon."""
    query, key = part.query_norm, part.key_norm
    if query is None or key is None or part.norm_span != "head":
        return False
    return query.kind == key.kind == "rms" and query.epsilon == key.epsilon and len(query.shape) == 1


def _wanted(part: Attention) -> str:
    """What beyond plain attention the part needs, for an error."""
    wants = [
        word
        for word, wanted in (
            ("later tokens", part.both_ways),
            ("a window", part.window),
            ("a softcap", part.softcap),
            ("sinks", part.sinks),
            ("a bias by distance", part.distance),
            ("chunks", part.chunk),
        )
        if wanted
    ]
    return f" with {' and '.join(wants)}" if wants else ", the only attention that is built"


def _input_types(graph: GraphBuilder, part: Attention, form: AttentionForm) -> list[ir.DataType | None]:
    """The types of the inputs that `_inputs` gives, in its order."""
    from drupe_onnx import ir

    kind, lengths = graph.dtype, ir.DataType.INT32
    apart = None if form.packed else kind
    tables = kind if form.rotates else None
    sinks = kind if part.sinks else None
    norms = kind if form.norms else None
    bias = kind if part.distance or part.chunk or _beside(part) else None
    types = [
        kind,
        apart,
        apart,
        kind,
        kind,
        lengths,
        lengths,
        tables,
        tables,
        None,
        bias,
        sinks,
        None,
        None,
        norms,
        norms,
    ]
    return _trimmed(types) if (sinks or norms or bias) else types[:9]


def _trimmed(values: list[Any]) -> list[Any]:
    """The values without the empty ones at the end."""
    while values[-1] is None:
        values.pop()
    return values


def _attributes(part: Attention, form: AttentionForm) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "num_heads": part.heads,
        "kv_num_heads": part.kv_heads,
        "scale": part.scale,
        "do_rotary": int(form.rotates),
    }
    if form.rotates and part.rotary is not None and part.rotary.interleaved:
        attributes["rotary_interleaved"] = 1
    if part.both_ways:
        attributes["causal"] = 0
    elif part.window is not None:
        attributes["local_window_size"] = part.window
    if part.softcap:
        attributes["softcap"] = part.softcap
    if form.norms and part.query_norm is not None:
        attributes["qk_norm_epsilon"] = part.query_norm.epsilon
    return attributes


def _inputs(
    graph: GraphBuilder,
    part: Attention,
    form: AttentionForm,
    projected: Sequence[ir.Value | None],
    shared: Shared,
) -> list[ir.Value | None]:
    lengths = shared.lengths
    given = [
        each and lengths.for_attention(each, f"{part.name}/Turned{number}") for number, each in enumerate(projected)
    ]
    inputs: list[ir.Value | None] = [*given, *_past(graph, part, form, shared)]
    inputs += [lengths.last_keys(), lengths.total_length()]
    rotary = part.rotary if form.rotates else None
    inputs += shared.tables.of(rotary, _pairs(rotary, part, form)) if rotary else (None, None)
    inputs += [None, _bias(part, shared)]
    inputs += [graph.vector(part.sinks) if part.sinks else None, None, None]
    if form.norms:
        assert part.query_norm is not None and part.key_norm is not None
        inputs += [gamma(graph, part.query_norm), gamma(graph, part.key_norm)]
    return _trimmed(inputs)


def _beside(part: Attention) -> int | None:
    """The window of attention in both directions. The operator has none there, so a bias shuts out other tokens."""
    return part.window if part.both_ways else None


def _bias(part: Attention, shared: Shared) -> ir.Value | None:
    """What is added to the products of query and key; None for nothing. No family has two of these."""
    if part.distance:
        return shared.biases.of(part.distance)
    if part.chunk is not None:
        return shared.chunks.of(part.chunk)
    window = _beside(part)
    return None if window is None else shared.windows.of(window)


def _past(graph: GraphBuilder, part: Attention, form: AttentionForm, shared: Shared) -> Sequence[ir.Value | None]:
    """The caches of the tokens before; none where no past is carried, if the target's operator does without."""
    from drupe_onnx import MICROSOFT

    if not shared.states.carried:
        types = _input_types(graph, part, form)
        types[3:5] = [None, None]
        outputs, attributes = [graph.dtype] * 3, _attributes(part, form)
        if graph.serves(OPERATOR, *types, domain=MICROSOFT, outputs=outputs, **attributes):
            return (None, None)
    return shared.states.past(part.states[0])


def _projected(
    graph: GraphBuilder, part: Attention, form: AttentionForm, x: ir.Value, shared: Shared
) -> list[ir.Value | None]:
    """Query, key and value as the operator takes them: one packed input and two empty ones, or three inputs."""
    parts = [part.query, part.key, part.value]
    if form.packed:
        packed = fused(graph, parts, f"{part.name}.qkv_proj", x, "attention.qkv")
        return [_padded(graph, part, form, packed, "", part.heads + 2 * part.kv_heads, part.head_dim), None, None]
    query, key, value = _apart(graph, part, x)
    steps = [_normed, _rotated] if not part.norm_after_rotary else [_rotated, _normed]
    for step in steps:
        if step is _rotated and form.rotates:
            continue
        query, key = step(graph, part, query, key, shared)
    if part.value_norm is not None:
        value = _norm_of_heads(graph, part, part.value_norm, value, part.kv_heads, "head")
    query = scaled_by_position(graph, part.name, part.query_scale, query, shared)
    if part.key_bias is not None:
        query = query_for_bias(graph, part.key_bias, query, part.heads, part.scale)
        key = key_with_bias(graph, part.key_bias, key, value)
    return [
        _padded(graph, part, form, query, "Query", part.heads, part.key_size),
        _padded(graph, part, form, key, "Key", part.kv_heads, part.key_size),
        _padded_value(graph, part, form, value),
    ]


def _apart(graph: GraphBuilder, part: Attention, x: ir.Value) -> Sequence[ir.Value]:
    """Query, key and value as three values: of one product where that is the same."""
    parts = [part.query, part.key, part.value]
    if not can_be_fused(parts):
        return [linear(graph, each, x, "attention.qkv") for each in parts]
    packed = fused(graph, parts, f"{part.name}.qkv_proj", x, "attention.qkv")
    sizes = [each.size for each in parts]
    kinds: list[tuple[ir.DataType, Dims] | None] = [(graph.dtype, [BATCH, SEQUENCE, size]) for size in sizes]
    return graph.nodes("Split", [packed, graph.integers(sizes)], f"{part.name}/Split", kinds, axis=-1)


def _normed(
    graph: GraphBuilder, part: Attention, query: ir.Value, key: ir.Value, shared: Shared
) -> tuple[ir.Value, ir.Value]:
    if part.query_norm is not None:
        query = _norm_of_heads(graph, part, part.query_norm, query, part.heads, part.norm_span)
    if part.key_norm is not None:
        key = _norm_of_heads(graph, part, part.key_norm, key, part.kv_heads, part.norm_span)
    return query, key


def _norm_of_heads(
    graph: GraphBuilder, part: Attention, of: Norm, x: ir.Value, heads: int, span: Literal["head", "whole"]
) -> ir.Value:
    """The norm of [batch, sequence, heads * head_dim], over each head or over all of it."""
    if span == "whole":
        return norm(graph, of, x)
    size = part.head_dim
    apart = graph.node(
        "Reshape", [x, graph.integers([0, 0, heads, size])], f"{of.name}/Heads", [BATCH, SEQUENCE, heads, size]
    )
    return graph.node(
        "Reshape",
        [norm(graph, of, apart), graph.integers([0, 0, heads * size])],
        f"{of.name}/Joined",
        [BATCH, SEQUENCE, heads * size],
    )


def gated(
    graph: GraphBuilder,
    prefix: str,
    gate: Linear,
    count: int,
    out: ir.Value,
    x: ir.Value,
    last_token: ir.Value | None,
    activation: str = "Sigmoid",
) -> ir.Value:
    """The result [batch, sequence, heads * size] of `count` heads times the gate of the part's input x.

    prefix: of the nodes' names. The gate has one value a head, or one an element.
    """
    name = f"{prefix}.gate"
    if last_token is not None:
        x = drop_all_but_last(graph, x, last_token, name)
    opened = linear(graph, gate, x, "attention.gate")
    opened = graph.node(activation, [opened], f"{name}/{activation}", dims(opened))
    if gate.size != count:
        return graph.node("Mul", [out, opened], f"{name}/Mul", dims(out))
    apart = heads(graph, out, count, name)
    column = graph.node("Unsqueeze", [opened, graph.integers([-1])], f"{name}/Column", [*dims(opened), 1])
    return joined(graph, graph.node("Mul", [apart, column], f"{name}/Mul", dims(apart)), name)


def _rotated(
    graph: GraphBuilder, part: Attention, query: ir.Value, key: ir.Value, shared: Shared
) -> tuple[ir.Value, ir.Value]:
    if part.rotary is None:
        return query, key
    return (
        _rotation(graph, part, part.rotary, query, "Query", part.heads, shared),
        _rotation(graph, part, part.rotary, key, "Key", part.kv_heads, shared),
    )


def _rotation(
    graph: GraphBuilder, part: Attention, rotary: Rotary, x: ir.Value, which: str, heads: int, shared: Shared
) -> ir.Value:
    from drupe_onnx import MICROSOFT

    partial = rotary.width != part.head_dim
    attributes: dict[str, Any] = {"num_heads": heads, "rotary_embedding_dim": rotary.width} if partial else {}
    if rotary.interleaved:
        attributes["interleaved"] = 1
    inputs = [x, shared.lengths.positions, *shared.tables.of(rotary, rotary.width // 2)]
    return graph.node("RotaryEmbedding", inputs, f"{part.name}/Rotate{which}", dims(x), domain=MICROSOFT, **attributes)


def scaled_by_position(
    graph: GraphBuilder, prefix: str, scale: PositionScale | None, query: ir.Value, shared: Shared
) -> ir.Value:
    """The query times its factor at each position. prefix: of the nodes' names."""
    from drupe_onnx import ir

    if scale is None:
        return query
    name, shape, wide = f"{prefix}/PositionScale", [BATCH, SEQUENCE], ir.DataType.FLOAT
    places = shared.lengths.positions
    if scale.shift:
        places = graph.node("Add", [places, graph.integers(scale.shift)], f"{name}/Shift", shape, dtype=places.dtype)
    at = graph.node("Cast", [places], f"{name}/Position", shape, dtype=wide, to=wide)
    times = graph.node("Div", [at, graph.number(scale.every, wide)], f"{name}/Div", shape, dtype=wide)
    whole = graph.node("Floor", [times], f"{name}/Floor", shape, dtype=wide)
    more = graph.node("Add", [whole, graph.number(1.0, wide)], f"{name}/More", shape, dtype=wide)
    log = graph.node("Log", [more], f"{name}/Log", shape, dtype=wide)
    grown = graph.node("Mul", [log, graph.number(scale.beta, wide)], f"{name}/Beta", shape, dtype=wide)
    factor = graph.node("Add", [grown, graph.number(1.0, wide)], f"{name}/Factor", shape, dtype=wide)
    column = graph.node("Unsqueeze", [factor, graph.integers([-1])], f"{name}/Column", [*shape, 1], dtype=wide)
    if graph.dtype != wide:
        column = graph.node("Cast", [column], f"{name}/Narrow", [*shape, 1], to=graph.dtype)
    return graph.node("Mul", [query, column], name, dims(query))
