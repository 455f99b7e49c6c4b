"""DecoderRecipe: everything that the graph builder needs to know about one decoder, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LongRope:
    """Other frequencies for all positions of a sequence that is longer than `trained` tokens."""

    trained: int
    frequencies: tuple[float, ...]


@dataclass(frozen=True)
class DynamicNtk:
    """Frequencies of a larger theta for all positions of a sequence of n tokens, more than `trained`.

    The theta is `theta` times (factor n / trained - (factor - 1)) to the power d / (d - 2), d elements being rotated.
    """

    trained: int
    theta: float
    factor: float


@dataclass(frozen=True)
class Rotary:
    """A rotary position embedding that rotates elements of a head's first half with those of its second half.

    frequencies: radians per position for each rotated pair. scaling: a factor on sine and cosine (YaRN has one).
    longer: how frequencies change in sequences longer than those of the training; None where they do not.
    """

    frequencies: tuple[float, ...]
    scaling: float = 1.0
    longer: LongRope | DynamicNtk | None = None

    @property
    def dim(self) -> int:
        """How many of a head's elements are rotated."""
        return 2 * len(self.frequencies)


@dataclass(frozen=True)
class TensorNames:
    """The names of a checkpoint's tensors. A layer's tensors have the prefix `layer`, with {} for its number.

    base: the prefix of all tensors but the head's; other programs have other ones.
    """

    base: str = "model."
    embedding: str = "model.embed_tokens.weight"
    layer: str = "model.layers.{}."
    input_norm: str = "input_layernorm.weight"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    query_norm: str = "self_attn.q_norm.weight"
    key_norm: str = "self_attn.k_norm.weight"
    output: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm.weight"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    final_norm: str = "model.norm.weight"
    head: str = "lm_head.weight"


@dataclass(frozen=True)
class DecoderRecipe:
    """A decoder of blocks, each with grouped-query attention and a gated MLP, both after an RMS norm.

    windows: for each layer, how many tokens attention reads, including the current one; None for all.
    qk_norm: whether each head's query and key go through an RMS norm before they are rotated.
    attention_scale: the factor on query times key. embedding_scale, residual_scale, logits_scale: factors on the
    embedding, on the result of attention and of MLP before it is added to the residual, and on the logits.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    windows: tuple[int | None, ...]
    rotary: Rotary
    norm_epsilon: float
    activation: str
    attention_scale: float
    tied: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    names: TensorNames = field(default_factory=TensorNames)

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    def tensor(self, layer: int, name: str) -> str:
        """The full name of a layer's tensor."""
        return self.names.layer.format(layer) + name

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the checkpoint must hold, with its shape. A tied head is the embedding's tensor."""
        names = self.names
        found: dict[str, tuple[int, ...]] = {names.embedding: (self.vocab_size, self.hidden_size)}
        for layer in range(self.layers):
            found.update((self.tensor(layer, name), shape) for name, shape in self._block_tensors())
        found[names.final_norm] = (self.hidden_size,)
        if not self.tied:
            found[names.head] = (self.vocab_size, self.hidden_size)
        return found

    def _block_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        names = self.names
        yield names.input_norm, (self.hidden_size,)
        yield from _linear(names.query, self.query_size, self.hidden_size, self.qkv_bias)
        yield from _linear(names.key, self.kv_size, self.hidden_size, self.qkv_bias)
        yield from _linear(names.value, self.kv_size, self.hidden_size, self.qkv_bias)
        if self.qk_norm:
            yield names.query_norm, (self.head_dim,)
            yield names.key_norm, (self.head_dim,)
        yield from _linear(names.output, self.hidden_size, self.query_size, self.output_bias)
        yield names.mlp_norm, (self.hidden_size,)
        yield from _linear(names.gate, self.intermediate_size, self.hidden_size, self.mlp_bias)
        yield from _linear(names.up, self.intermediate_size, self.hidden_size, self.mlp_bias)
        yield from _linear(names.down, self.hidden_size, self.intermediate_size, self.mlp_bias)


def _linear(name: str, rows: int, columns: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)
