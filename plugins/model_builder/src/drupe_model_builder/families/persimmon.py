"""Persimmon: LayerNorms, one matrix for query, key and value, half of each head rotated, and a squared ReLU."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Layer

NAMES = Names(output="dense", query_norm="q_layernorm", key_norm="k_layernorm", up="dense_h_to_4h",
              down="dense_4h_to_h", final_norm="model.final_layernorm")  # fmt: skip
NORMS = {"kind": "layer", "bias": True}
IN_THE_GRAPH = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def persimmon(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=16384, epsilon=1e-5, epsilon_key="layer_norm_eps", grouped=False)
    rotary, relu2 = rotary_of(config, sizes, partial=0.5), activation(config, default="relu2")
    normed = config.flag("qk_layernorm", True)
    rows = by_head([sizes.head_dim] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        projections = block.split("self_attn.query_key_value", sizes.hidden, rows, IN_THE_GRAPH, bias=True)
        attention = block.attention(rotary, projections=projections, output_bias=True, head_norm=normed)
        return block.pre_norm(attention, block.plain_mlp(relu2, bias=True))

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS)
