"""DiffLlama: Llama whose attention is the difference of two halves of its heads, over values twice as wide as keys."""

from __future__ import annotations

import math

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import activation, not_built, rotary_of, sizes_of, without_effect
from drupe_model_builder.parts.difference import Difference
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


def diffllama(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    without_effect(config, "lambda_std_dev")
    if sizes.kv_heads % 2:
        cure = "choose another model: transformers refuses it as well"
        raise not_built(config, "num_key_value_heads", sizes.kv_heads, "leaves a head of values without another", cure)

    def layer(block: Block) -> Layer:
        query, key = (
            block.linear(f"self_attn.{name}_proj", rows, sizes.hidden, bias)
            for name, rows in (("q", sizes.query), ("k", sizes.key))
        )
        attention = block.attention(
            rotary,
            projections=(query, key, _values(block, bias)),
            output=block.linear("self_attn.o_proj", sizes.hidden, sizes.query, bias),
            value_dim=2 * sizes.head_dim,
            difference=_difference(block, sizes),
        )
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer)


def _values(block: Block, bias: bool) -> Linear:
    """The rows of values as heads twice as wide: one of the first half of the heads, and one of the second.

    Each of these pairs serves two heads of keys, so its rows are there twice.
    """
    sizes, name = block.sizes, f"{block.name}.self_attn.v_proj"
    half, size = sizes.kv_heads // 2, sizes.head_dim
    pairs = [(at % half, half + at % half) for at in range(sizes.kv_heads)]
    rows = tuple(range(at * size, (at + 1) * size) for pair in pairs for at in pair)
    vector = Rows(f"{name}.bias", (sizes.key,)).of(rows) if bias else None
    return Linear(name, Rows(f"{name}.weight", (sizes.key, sizes.hidden)).of(rows), vector)


def _difference(block: Block, sizes: Sizes) -> Difference:
    initial, at = 0.8 - 0.6 * math.exp(-0.3 * block.number), f"{block.name}.self_attn"
    q1, k1, q2, k2 = (f"{at}.{name}" for name in LAMBDAS)
    return Difference(
        f"{at}.difference",
        (q1, k1, q2, k2),
        sizes.head_dim,
        initial,
        Norm(f"{at}.groupnorm", (2 * sizes.head_dim,), sizes.epsilon, weight=False),
        1 - initial,
    )
