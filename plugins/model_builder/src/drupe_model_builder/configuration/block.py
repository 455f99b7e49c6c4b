"""Block: one layer on its way, with the parts that most families compose theirs of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from drupe.api import ModelError, Record, field
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.activations import Xielu
from drupe_model_builder.parts.altup import Streams
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.ends import Embedding, Head
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.layer_inputs import LayerInputs
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer, Mixer, Step, pre


class Sizes(Record):
    """The sizes of a decoder whose layers are alike.

    context_length: the most tokens that it reads. stated_length: what config.json says of that, before rotary
    parameters extend it; 0 for the same. epsilon: of its norms.
    """

    vocab_size: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    context_length: int
    epsilon: float
    stated_length: int = 0

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim


class Names(Record):
    """The names of a checkpoint's tensors: by default Llama's.

    layer has {} for its number. mlp: empty where the matrices of a plain MLP stand in the layer itself.
    """

    embedding: str = "model.embed_tokens"
    layer: str = "model.layers.{}"
    attention: str = "self_attn"
    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"
    output: str = "o_proj"
    query_norm: str = "q_norm"
    key_norm: str = "k_norm"
    mlp: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    final_norm: str = "model.norm"
    head: str = "lm_head"


class Block(Record):
    """One layer on its way. norms: what all of its norms have in common."""

    number: int
    sizes: Sizes
    names: Names = field(default_factory=Names)
    norms: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The prefix of the layer's tensors."""
        return self.names.layer.format(self.number)

    def layer(self, *steps: Step) -> Layer:
        return Layer(self.name, steps)

    def pre_norm(self, attention: Mixer, mlp: MLP | Experts, factor: float = 1.0) -> Layer:
        """Llama's layer: attention and MLP, each after a norm. factor: on both results."""
        return self.layer(
            pre(self.norm("input_layernorm"), attention, factor),
            pre(self.norm("post_attention_layernorm"), mlp, factor),
        )

    def norm(self, name: str, size: int | None = None, **differences: Any) -> Norm:
        """A norm over the hidden size, or over `size`. name: within the layer."""
        settings = {"epsilon": self.sizes.epsilon, **self.norms, **differences}
        return Norm(f"{self.name}.{name}", (size or self.sizes.hidden,), **settings)

    def linear(self, name: str, rows: int, columns: int, bias: bool = False, **differences: Any) -> Linear:
        """A matrix of the checkpoint [rows, columns] as a whole. name: within the layer."""
        full = f"{self.name}.{name}"
        vector = Rows(f"{full}.bias", (rows,)) if bias else None
        return Linear(full, Rows(f"{full}.weight", (rows, columns)), vector, **differences)

    def split(
        self,
        name: str,
        columns: int,
        parts: Sequence[Sequence[range]],
        called: Sequence[str],
        *,
        bias: bool = False,
        transposed: bool = False,
        **differences: Any,
    ) -> list[Linear]:
        """The parts of a fused matrix: for each the ranges of its rows, and the name that it has in the graph."""
        full = f"{self.name}.{name}"
        rows = sum(len(each) for ranges in parts for each in ranges)
        shape = (columns, rows) if transposed else (rows, columns)
        matrix, vector = Rows(f"{full}.weight", shape, transposed=transposed), Rows(f"{full}.bias", (rows,))
        return [
            Linear(f"{self.name}.{part}", matrix.of(ranges), vector.of(ranges) if bias else None, **differences)
            for part, ranges in zip(called, parts, strict=True)
        ]

    def attention(
        self,
        rotary: Rotary | None,
        *,
        bias: bool = False,
        output_bias: bool = False,
        projections: Sequence[Linear] = (),
        output: Linear | None = None,
        scale: float | None = None,
        head_norm: bool = False,
        clip: float | None = None,
        value_dim: int | None = None,
        **differences: Any,
    ) -> Attention:
        """Grouped-query attention.

        bias: of query, key and value. projections: these three, where they are not matrices of their own.
        head_norm: whether each head's query and key have a norm. clip: a limit on query, key and value.
        value_dim: elements of a head's value, where they are not those of its key. differences: other fields of
        `Attention`.
        """
        if scale == 0:  # the operator takes 0 as the usual scale
            raise ModelError(
                "the factors in config.json make the scale of attention 0",
                cure="correct them to what the model was trained with",
            )
        sizes, names, at = self.sizes, self.names, self.names.attention
        values = value_dim or sizes.head_dim
        rows = ((names.query, sizes.query), (names.key, sizes.key), (names.value, sizes.kv_heads * values))
        query, key, value = projections or (
            self.linear(f"{at}.{name}", count, sizes.hidden, bias, clip=clip) for name, count in rows
        )
        norms: dict[str, Norm] = {}
        if head_norm:
            norms = {
                "query_norm": self.norm(f"{at}.{names.query_norm}", sizes.head_dim),
                "key_norm": self.norm(f"{at}.{names.key_norm}", sizes.head_dim),
            }
        settings: dict[str, Any] = {
            "heads": sizes.heads,
            "kv_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "scale": sizes.head_dim**-0.5 if scale is None else scale,
            "value_dim": None if values == sizes.head_dim else values,
            **norms,
            **differences,
        }
        return Attention(
            f"{self.name}.{at}",
            self.number,
            query,
            key,
            value,
            output or self.linear(f"{at}.{names.output}", sizes.hidden, sizes.heads * values, output_bias),
            rotary=rotary,
            **settings,
        )

    def gated_mlp(self, activation: str, *, bias: bool = False, fused: str = "", **differences: Any) -> MLP:
        """down(activation(gate(x)) * up(x)). fused: the matrix that holds the rows of gate and then those of up."""
        sizes, names, at = self.sizes, self.names, self.names.mlp
        wide = sizes.intermediate
        called = [f"{at}.{names.gate}", f"{at}.{names.up}"]
        if fused:
            halves = [(range(wide),), (range(wide, 2 * wide),)]
            gate, up = self.split(f"{at}.{fused}", sizes.hidden, halves, called, bias=bias)
        else:
            gate, up = (self.linear(name, wide, sizes.hidden, bias) for name in called)
        down = self.linear(f"{at}.{names.down}", sizes.hidden, wide, bias)
        return MLP(f"{self.name}.{at}", up, down, activation, gate=gate, **differences)

    def plain_mlp(self, activation: str | Xielu, *, bias: bool = False, **differences: Any) -> MLP:
        """down(activation(up(x)))."""
        sizes, names = self.sizes, self.names
        at = f"{names.mlp}." if names.mlp else ""
        up = self.linear(f"{at}{names.up}", sizes.intermediate, sizes.hidden, bias)
        down = self.linear(f"{at}{names.down}", sizes.hidden, sizes.intermediate, bias)
        return MLP(f"{self.name}.{names.mlp or 'mlp'}", up, down, activation, **differences)


def decoder(
    config: Configuration,
    sizes: Sizes,
    layer: Callable[[Block], Layer],
    *,
    names: Names | None = None,
    norms: dict[str, Any] | None = None,
    tied: bool | None = None,
    embedding: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    layer_inputs: LayerInputs | None = None,
    streams: Streams | None = None,
    ignored: Sequence[str] = (),
    aliases: Sequence[tuple[str, str]] = (),
) -> Decoder:
    """A decoder of layers that `layer` composes, with the ends that most families have.

    norms: what all norms have in common. tied: by default what config.json says. embedding, head: other fields.
    """
    names, norms = names or Names(), norms or {}
    blocks = [Block(number, sizes, names, norms) for number in range(sizes.layers)]
    is_tied = config.flag("tie_word_embeddings", False) if tied is None else tied
    return Decoder(
        model_type=config.text("model_type"),
        context_length=sizes.context_length,
        embedding=Embedding(f"{names.embedding}.weight", sizes.vocab_size, sizes.hidden, **(embedding or {})),
        layers=tuple(map(layer, blocks)),
        final_norm=Norm(names.final_norm, (sizes.hidden,), **{"epsilon": sizes.epsilon, **norms}),
        head=Head(f"{names.head}.weight", tied=is_tied, **(head or {})),
        base=f"{names.embedding.partition('.')[0]}.",
        layer_inputs=layer_inputs,
        streams=streams,
        ignored=tuple(ignored),
        aliases=tuple(aliases),
    )
