"""XGLM: LayerNorms, biases, sinusoids in place of learned positions, and an embedding times the root of its width."""

from __future__ import annotations

import math

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    MOST_LAYERS,
    activation,
    head_size,
    sinusoid_width,
    without_effect,
)
from drupe_model_builder.parts.sinusoids import Sinusoids
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(output="out_proj", mlp="", up="fc1", down="fc2", final_norm="model.layer_norm")
FIRST_POSITION = 2


def xglm(config: Configuration) -> Decoder:
    sizes = _sizes(config)
    gelu = activation(config, key="activation_function", default="gelu")
    factor = sizes.hidden**0.5 if config.flag("scale_embedding", True) else 1.0
    without_effect(config, "activation_dropout", "decoder_start_token_id", "init_std")

    def layer(block: Block) -> Layer:
        return block.layer(
            pre(block.norm("self_attn_layer_norm"), block.attention(None, bias=True, output_bias=True)),
            pre(block.norm("final_layer_norm"), block.plain_mlp(gelu, bias=True)),
        )

    rows = sizes.context_length + FIRST_POSITION
    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms={"kind": "layer", "bias": True},
        tied=config.flag("tie_word_embeddings", True),
        embedding={
            "factor": factor,
            "positions": Sinusoids("model.embed_positions", _frequencies(sizes.hidden), rows),
            "position_count": rows,
            "position_offset": FIRST_POSITION,
        },
        ignored=(r"model\.embed_positions\.weights",),
    )


def _frequencies(size: int) -> tuple[float, ...]:
    """From 1 to 1 / 10,000, both included."""
    pairs = size // 2
    return tuple(math.exp(-pair * math.log(10_000) / (pairs - 1)) for pair in range(pairs))


def _sizes(config: Configuration) -> Sizes:
    hidden = sinusoid_width(config, "d_model", 1024, least=4)
    heads = config.integer("attention_heads", 16, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 256008),
        hidden=hidden,
        intermediate=config.integer("ffn_dim", 4096),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "d_model", "attention_heads"),
        layers=config.integer("num_layers", 24, most=MOST_LAYERS),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=1e-5,
    )
