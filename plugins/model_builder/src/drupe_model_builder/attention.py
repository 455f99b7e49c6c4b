"""Grouped-query attention: projections, q/k norms and rotary embedding around GroupQueryAttention."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from drupe.api import ModelError
from drupe_model_builder.graph import Dims, GraphBuilder
from drupe_model_builder.linear import linear
from drupe_model_builder.norms import rms_norm
from drupe_model_builder.recipe import DecoderRecipe
from drupe_model_builder.rotary import rotary_tables
from drupe_model_builder.sequence_lengths import BATCH, INT64, PAST, SEQUENCE, TOTAL, Lengths
from drupe_onnx import MICROSOFT, element_name, ir

OPERATOR = "GroupQueryAttention"
# Multiples that the size of a head must be for GroupQueryAttention, on every provider, and if it also rotates.
HEAD_MULTIPLE, ROTATED_MULTIPLE = 8, 16


@dataclass(frozen=True)
class AttentionForm:
    """What GroupQueryAttention computes itself on a target. Nodes before it compute the rest.

    packed: takes query, key and value as one input. rotates: applies the rotary embedding. norms: applies q/k norms.
    head_size: elements of a head in the operator and in the caches. Where it is more than the model's, zeros stand
    behind both halves of each head: they change no product, and halves are what the rotary embedding rotates.
    """

    packed: bool
    rotates: bool
    norms: bool
    head_size: int


def choose_form(graph: GraphBuilder, recipe: DecoderRecipe) -> AttentionForm:
    """The form in which the operator computes most. Raises ModelError where the target supports no form."""
    window = min((window for window in recipe.windows if window), default=None)
    for form in _forms(graph, recipe):
        types = _input_types(graph, form)
        attributes = _attributes(recipe, form, window)
        if graph.serves(OPERATOR, *types, domain=MICROSOFT, outputs=[graph.dtype] * 3, **attributes):
            return form
    if recipe.head_dim % HEAD_MULTIPLE and not _pads(graph):
        raise ModelError(
            f"a head dimension of {recipe.head_dim} is not supported: {OPERATOR} needs a multiple of {HEAD_MULTIPLE}, "
            f"and the target has no Pad for {element_name(graph.dtype)} activations",
            cure="convert for another provider, or another version of this one; drupe providers lists them",
        )
    raise ModelError(
        f"the target has no {OPERATOR} for {element_name(graph.dtype)} activations, the only attention that is built",
        cure="choose a precision with other activations; drupe providers lists them",
    )


def _forms(graph: GraphBuilder, recipe: DecoderRecipe) -> Iterator[AttentionForm]:
    """The forms to choose from, the best first. A head that fits the operator's multiples is not padded."""
    size = recipe.head_dim
    # A norm or rotation before attention is applied to query and key separately, so they cannot be packed then.
    if size % ROTATED_MULTIPLE == 0:
        yield AttentionForm(True, True, recipe.qk_norm, size)
        yield AttentionForm(False, True, False, size)
    if size % HEAD_MULTIPLE == 0:
        yield AttentionForm(False, False, False, size)
    elif _pads(graph):
        rotated = _multiple(size, ROTATED_MULTIPLE)
        if not recipe.qk_norm:
            yield AttentionForm(True, True, False, rotated)
        yield AttentionForm(False, True, False, rotated)
        yield AttentionForm(False, False, False, _multiple(size, HEAD_MULTIPLE))


def _pads(graph: GraphBuilder) -> bool:
    return graph.serves("Pad", graph.dtype, INT64, outputs=[graph.dtype])


def _multiple(size: int, of: int) -> int:
    """The smallest multiple that is not less than `size`."""
    return -(-size // of) * of


def _input_types(graph: GraphBuilder, form: AttentionForm) -> list[ir.DataType | None]:
    """The types of the inputs that `_inputs` gives, in its order."""
    kind, lengths = graph.dtype, ir.DataType.INT32
    apart = None if form.packed else kind
    tables = kind if form.rotates else None
    types = [kind, apart, apart, kind, kind, lengths, lengths, tables, tables]
    return [*types, *[None] * 5, kind, kind] if form.norms else types


def _attributes(recipe: DecoderRecipe, form: AttentionForm, window: int | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "num_heads": recipe.heads,
        "kv_num_heads": recipe.kv_heads,
        "scale": recipe.attention_scale,
        "do_rotary": int(form.rotates),
    }
    if window is not None:
        attributes["local_window_size"] = window
    if form.norms:
        attributes["qk_norm_epsilon"] = recipe.norm_epsilon
    return attributes


class Attention:
    """The attention half of every block of one decoder."""

    def __init__(self, graph: GraphBuilder, recipe: DecoderRecipe, form: AttentionForm, lengths: Lengths) -> None:
        self.graph = graph
        self.recipe = recipe
        self.form = form
        self.lengths = lengths
        self.past = [self._past(layer) for layer in range(recipe.layers)]
        self.present: list[tuple[ir.Value, ir.Value]] = []

    def __call__(self, x: ir.Value, layer: int) -> ir.Value:
        """The result of the heads of `layer` for x [batch, sequence, hidden]: [batch, sequence, heads * head_dim]."""
        prefix = self.recipe.tensor(layer, "self_attn")
        projected = self._project(x, layer, prefix)
        shape: Dims = [BATCH, self.recipe.kv_heads, TOTAL, self.form.head_size]
        kind = self.graph.dtype
        out, key, value = self.graph.nodes(
            OPERATOR,
            self._inputs(projected, layer),
            f"{prefix}/{OPERATOR}",
            [(kind, [BATCH, SEQUENCE, self.recipe.heads * self.form.head_size]), (kind, shape), (kind, shape)],
            domain=MICROSOFT,
            **_attributes(self.recipe, self.form, self.recipe.windows[layer]),
        )
        self.present.append((key, value))
        return self._cut(out, f"{prefix}/Cut")

    def name_outputs(self) -> None:
        """Make the caches with the new tokens outputs of the graph."""
        for layer, (key, value) in enumerate(self.present):
            self.graph.output(key, f"present.{layer}.key")
            self.graph.output(value, f"present.{layer}.value")

    @functools.cached_property
    def _tables(self) -> Sequence[ir.Value]:
        """The cosines and sines of the rotary embedding, for all blocks."""
        recipe = self.recipe
        pairs = (self.form.head_size if self.form.rotates else recipe.head_dim) // 2
        with self.graph.block(None):
            return rotary_tables(self.graph, recipe.rotary, recipe.context_length, pairs, self.lengths)

    def _past(self, layer: int) -> tuple[ir.Value, ir.Value]:
        shape: Dims = [BATCH, self.recipe.kv_heads, PAST, self.form.head_size]
        names = (f"past_key_values.{layer}.{part}" for part in ("key", "value"))
        key, value = (self.graph.input(name, self.graph.dtype, shape) for name in names)
        return key, value

    def _inputs(self, projected: Sequence[ir.Value | None], layer: int) -> list[ir.Value | None]:
        inputs = [*projected, *self.past[layer], self.lengths.last_keys(), self.lengths.total_length()]
        inputs += self._tables if self.form.rotates else [None, None]
        if self.form.norms:
            names = self.recipe.names
            norms = (self.recipe.tensor(layer, name) for name in (names.query_norm, names.key_norm))
            inputs += [None] * 5 + [self.graph.vector(name) for name in norms]
        while inputs[-1] is None:
            inputs.pop()
        return inputs

    def _project(self, x: ir.Value, layer: int, prefix: str) -> list[ir.Value | None]:
        """Query, key and value as the operator takes them: one packed input and two empty ones, or three inputs."""
        recipe = self.recipe
        names = [recipe.tensor(layer, name) for name in (recipe.names.query, recipe.names.key, recipe.names.value)]
        sizes = [recipe.query_size, recipe.kv_size, recipe.kv_size]
        shape: Dims = [BATCH, SEQUENCE, sum(sizes)]
        packed = linear(self.graph, x, names, f"{prefix}.qkv_proj", shape, role="attention.qkv", bias=recipe.qkv_bias)
        if self.form.packed:
            return [self._padded(packed, f"{prefix}/Padded", recipe.heads + 2 * recipe.kv_heads), None, None]
        kinds: list[tuple[ir.DataType, Dims] | None] = [(self.graph.dtype, [BATCH, SEQUENCE, size]) for size in sizes]
        query, key, value = self.graph.nodes(
            "Split", [packed, self.graph.integers(sizes)], f"{prefix}/Split", kinds, axis=-1
        )
        if recipe.qk_norm:
            query = self._normed(query, recipe.tensor(layer, recipe.names.query_norm), recipe.heads)
            key = self._normed(key, recipe.tensor(layer, recipe.names.key_norm), recipe.kv_heads)
        if not self.form.rotates:
            query = self._rotated(query, f"{prefix}/RotateQuery", recipe.heads)
            key = self._rotated(key, f"{prefix}/RotateKey", recipe.kv_heads)
        return [
            self._padded(query, f"{prefix}/PaddedQuery", recipe.heads),
            self._padded(key, f"{prefix}/PaddedKey", recipe.kv_heads),
            self._padded(value, f"{prefix}/PaddedValue", recipe.kv_heads),
        ]

    def _normed(self, x: ir.Value, weight: str, heads: int) -> ir.Value:
        """Each head's RMS norm of [batch, sequence, heads * head_dim], which is reshaped to separate the heads."""
        graph, size = self.graph, self.recipe.head_dim
        name = weight.removesuffix(".weight")
        apart = graph.node(
            "Reshape", [x, graph.integers([0, 0, heads, size])], f"{name}/Heads", [BATCH, SEQUENCE, heads, size]
        )
        normed = rms_norm(graph, apart, weight, self.recipe.norm_epsilon)
        return graph.node(
            "Reshape", [normed, graph.integers([0, 0, heads * size])], f"{name}/Joined", [BATCH, SEQUENCE, heads * size]
        )

    def _rotated(self, x: ir.Value, name: str, heads: int) -> ir.Value:
        partial = self.recipe.rotary.dim != self.recipe.head_dim
        sizes: dict[str, Any] = {"num_heads": heads, "rotary_embedding_dim": self.recipe.rotary.dim} if partial else {}
        inputs = [x, self.lengths.positions, *self._tables]
        shape: Dims = [BATCH, SEQUENCE, heads * self.recipe.head_dim]
        return self.graph.node("RotaryEmbedding", inputs, name, shape, domain=MICROSOFT, **sizes)

    def _padded(self, x: ir.Value, name: str, heads: int) -> ir.Value:
        """x [batch, sequence, heads * head_dim] with the operator's size of a head: each half padded with zeros."""
        graph, half, wanted = self.graph, self.recipe.head_dim // 2, self.form.head_size // 2
        if half == wanted:
            return x
        halves = graph.node(
            "Reshape",
            [x, graph.integers([0, 0, 2 * heads, half])],
            f"{name}/Halves",
            [BATCH, SEQUENCE, 2 * heads, half],
        )
        sizes = graph.integers([0] * 7 + [wanted - half])
        padded = graph.node("Pad", [halves, sizes], f"{name}/Pad", [BATCH, SEQUENCE, 2 * heads, wanted])
        joined = 2 * heads * wanted
        return graph.node(
            "Reshape", [padded, graph.integers([0, 0, joined])], f"{name}/Joined", [BATCH, SEQUENCE, joined]
        )

    def _cut(self, x: ir.Value, name: str) -> ir.Value:
        """The result of the heads [batch, sequence, heads * head_size] without what was padded."""
        graph, half, held = self.graph, self.recipe.head_dim // 2, self.form.head_size // 2
        if half == held:
            return x
        parts = 2 * self.recipe.heads
        halves = graph.node(
            "Reshape", [x, graph.integers([0, 0, parts, held])], f"{name}/Halves", [BATCH, SEQUENCE, parts, held]
        )
        bounds = [graph.integers([first]) for first in (0, half, 3)]
        cut = graph.node("Slice", [halves, *bounds], f"{name}/Slice", [BATCH, SEQUENCE, parts, half])
        size = self.recipe.query_size
        return graph.node("Reshape", [cut, graph.integers([0, 0, size])], f"{name}/Joined", [BATCH, SEQUENCE, size])
