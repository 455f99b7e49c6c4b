"""Phi 1, 1.5 and 2: attention and an MLP without a gate side by side after one LayerNorm, and a head with a bias."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Branch, Layer, side_by_side

NAMES = Names(output="dense", query_norm="q_layernorm", key_norm="k_layernorm", up="fc1", down="fc2",
              final_norm="model.final_layernorm")  # fmt: skip
NORMS = {"kind": "layer", "bias": True}


def phi(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5, epsilon_key="layer_norm_eps")
    rotary, gelu = rotary_of(config, sizes, partial=0.5), activation(config, default="gelu_new")
    normed = config.flag("qk_layernorm", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=True, output_bias=True, head_norm=normed)
        mlp = block.plain_mlp(gelu, bias=True)
        return block.layer(side_by_side(block.norm("input_layernorm"), Branch(attention), Branch(mlp)))

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS, head={"bias": "lm_head.bias"})
