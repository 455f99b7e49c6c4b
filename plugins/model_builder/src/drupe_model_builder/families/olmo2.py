"""OLMo 2: norms on the results only, and over the whole of query and key."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    rotary_of,
    sizes_of,
)
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer, post


def olmo2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes), activation(config)

    def layer(block: Block) -> Layer:
        return normed_attention(config, block, rotary, silu, None)

    return decoder(config, sizes, layer)


def normed_attention(
    config: Configuration, block: Block, rotary: Rotary | None, silu: str, window: int | None
) -> Layer:
    """A layer of attention and MLP, with norms on their results."""
    bias, sizes = config.flag("attention_bias", False), block.sizes
    attention = block.attention(
        rotary,
        bias=bias,
        output_bias=bias,
        window=window,
        norm_span="whole",
        query_norm=block.norm("self_attn.q_norm", sizes.query),
        key_norm=block.norm("self_attn.k_norm", sizes.key),
    )
    return block.layer(
        post(attention, block.norm("post_attention_layernorm")),
        post(block.gated_mlp(silu), block.norm("post_feedforward_layernorm")),
    )
