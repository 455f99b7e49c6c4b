"""BioGPT: LayerNorms, learned positions that begin at row 2, and an embedding times the root of the hidden size."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, head_size, sizes_of, without_effect
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(
    embedding="biogpt.embed_tokens",
    layer="biogpt.layers.{}",
    output="out_proj",
    mlp="",
    up="fc1",
    down="fc2",
    final_norm="biogpt.layer_norm",
    head="output_projection",
)
NORMS = {"kind": "layer", "bias": True, "epsilon": 1e-5}
FIRST_POSITION = 2


def biogpt(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=1024, grouped=False)
    head_size(config, sizes.hidden, sizes.heads, "hidden_size", "num_attention_heads")
    without_effect(config, "activation_dropout", "layer_norm_eps")  # the norms have an epsilon of their own
    gelu, scaled = activation(config, default="gelu"), config.flag("scale_embedding", True)

    def layer(block: Block) -> Layer:
        return block.layer(
            pre(block.norm("self_attn_layer_norm"), block.attention(None, bias=True, output_bias=True)),
            pre(block.norm("final_layer_norm"), block.plain_mlp(gelu, bias=True)),
        )

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        tied=config.flag("tie_word_embeddings", True),
        embedding={
            "factor": sizes.hidden**0.5 if scaled else 1.0,
            "positions": "biogpt.embed_positions.weight",
            "position_count": sizes.context_length + FIRST_POSITION,
            "position_offset": FIRST_POSITION,
        },
    )
