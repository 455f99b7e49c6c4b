"""OPT and Galactica: LayerNorms, learned positions that begin at row 2, and an MLP without a gate."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    activation,
    head_size,
    layer_count,
    not_built,
    without_effect,
)
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(
    embedding="model.decoder.embed_tokens",
    layer="model.decoder.layers.{}",
    output="out_proj",
    mlp="",
    up="fc1",
    down="fc2",
    final_norm="model.decoder.final_layer_norm",
)
FIRST_POSITION = 2
WITHOUT_EFFECT = ("activation_dropout", "init_std", "learned_embeddings", "scale_embeddings")
"""Keys of published files: of training, and Galactica's, which transformers does not read."""
LAST_NORM = {"do_layer_norm_before": True, "_remove_final_layer_norm": False}
"""Settings that leave out the norm before the head, with the one value that is supported, which is the default."""


def opt(config: Configuration) -> Decoder:
    for key, only in LAST_NORM.items():
        if config.flag(key, only) != only:
            cure = "choose another size of the model, such as OPT-125M or OPT-1.3B"
            raise not_built(config, key, not only, "leaves out the norm before the head", cure)
    without_effect(config, *WITHOUT_EFFECT)
    sizes = _sizes(config)
    relu, bias = activation(config, key="activation_function", default="relu"), config.flag("enable_bias", True)
    weighted = config.flag("layer_norm_elementwise_affine", True)

    def layer(block: Block) -> Layer:
        return block.layer(
            pre(block.norm("self_attn_layer_norm"), block.attention(None, bias=bias, output_bias=bias)),
            pre(block.norm("final_layer_norm"), block.plain_mlp(relu, bias=bias)),
        )

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms={"kind": "layer", "weight": weighted, "bias": weighted},
        tied=config.flag("tie_word_embeddings", True),
        embedding={
            "positions": "model.decoder.embed_positions.weight",
            "position_count": sizes.context_length + FIRST_POSITION,
            "position_offset": FIRST_POSITION,
        },
    )


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 50272),
        hidden=hidden,
        intermediate=config.integer("ffn_dim", 3072),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_attention_heads"),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=1e-5,
    )
