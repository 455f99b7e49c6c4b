"""EXAONE 3 and 3.5: Llama with names of its own."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, activation, head_size, rotary_of, shared_by
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(
    embedding="transformer.wte",
    layer="transformer.h.{}",
    attention="attn.attention",
    output="out_proj",
    gate="c_fc_0",
    up="c_fc_1",
    down="c_proj",
    final_norm="transformer.ln_f",
)


def exaone(config: Configuration) -> Decoder:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    sizes = Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=config.integer("intermediate_size", 4 * hidden),
        heads=heads,
        kv_heads=shared_by(config, heads, config.integer("num_key_value_heads", heads)),
        head_dim=config.integer("head_dim", head_size(config, hidden, heads, "hidden_size", "num_attention_heads")),
        layers=config.integer("num_layers", most=MOST_LAYERS),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )
    rotary, silu = rotary_of(config, sizes), activation(config, key="activation_function")

    def layer(block: Block) -> Layer:
        return block.layer(
            pre(block.norm("ln_1"), block.attention(rotary)), pre(block.norm("ln_2"), block.gated_mlp(silu))
        )

    return decoder(config, sizes, layer, names=NAMES)
