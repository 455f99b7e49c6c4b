"""GLM-4 0414: GLM with norms on the results as well."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation
from drupe_model_builder.families.glm import glm_attention, glm_sizes
from drupe_model_builder.parts.step import Layer, both


def glm4(config: Configuration) -> Decoder:
    sizes, rotary = glm_sizes(config)
    silu = activation(config)

    def layer(block: Block) -> Layer:
        attention = glm_attention(config, block, rotary)
        mlp = block.gated_mlp(silu, fused="gate_up_proj")
        return block.layer(
            both(block.norm("input_layernorm"), attention, block.norm("post_self_attn_layernorm")),
            both(block.norm("post_attention_layernorm"), mlp, block.norm("post_mlp_layernorm")),
        )

    return decoder(config, sizes, layer)
