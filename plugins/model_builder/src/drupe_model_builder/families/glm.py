"""GLM-4 9B in Hugging Face's form: half of each head is rotated by neighbours, gate and up are one matrix."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer


def glm(config: Configuration) -> Decoder:
    sizes, rotary = glm_sizes(config)
    silu = activation(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(glm_attention(config, block, rotary), block.gated_mlp(silu, fused="gate_up_proj"))

    return decoder(config, sizes, layer)


def glm_sizes(config: Configuration) -> tuple[Sizes, Rotary]:
    sizes = sizes_of(config, context_length=131072, kv_heads=2, head_dim=128, epsilon=1.5625e-07)
    return sizes, rotary_of(config, sizes, partial=0.5, interleaved=True)


def glm_attention(config: Configuration, block: Block, rotary: Rotary) -> Attention:
    return block.attention(rotary, bias=config.flag("attention_bias", True))
