"""Granite 3: Llama with factors on the embedding, the residual, the attention and the logits."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, attention_multiplier, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def granite(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    scale, factor = attention_multiplier(config), config.number("residual_multiplier", 1.0)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, scale=scale)
        return block.pre_norm(attention, block.gated_mlp(silu, bias=mlp_bias), factor)

    return decoder(
        config,
        sizes,
        layer,
        **granite_ends(config),
    )


def granite_ends(config: Configuration) -> dict[str, Any]:
    """What `decoder` is told of the ends of every Granite: the factors on the embedding and on the logits."""
    return {
        "embedding": {"factor": config.number("embedding_multiplier", 1.0)},
        "head": {"factor": 1.0 / config.number("logits_scaling", 1.0, above=0)},
    }
