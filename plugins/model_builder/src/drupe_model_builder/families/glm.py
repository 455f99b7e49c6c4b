"""GLM-4 9B in Hugging Face's form (`glm`), and GLM-4 0414 (`glm4`), which has norms on the results as well."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.block import Block, Sizes, decoder
from drupe_model_builder.families.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer, both


def glm(config: Configuration) -> Decoder:
    sizes, rotary = _sizes(config)
    silu = activation(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(_attention(config, block, rotary), block.gated_mlp(silu, fused="gate_up_proj"))

    return decoder(config, sizes, layer)


def glm4(config: Configuration) -> Decoder:
    sizes, rotary = _sizes(config)
    silu = activation(config)

    def layer(block: Block) -> Layer:
        attention = _attention(config, block, rotary)
        mlp = block.gated_mlp(silu, fused="gate_up_proj")
        return block.layer(
            both(block.norm("input_layernorm"), attention, block.norm("post_self_attn_layernorm")),
            both(block.norm("post_attention_layernorm"), mlp, block.norm("post_mlp_layernorm")),
        )

    return decoder(config, sizes, layer)


def _sizes(config: Configuration) -> tuple[Sizes, Rotary]:
    sizes = sizes_of(config, context_length=131072, kv_heads=2, head_dim=128, epsilon=1.5625e-07)
    return sizes, rotary_of(config, sizes, partial=0.5, interleaved=True)


def _attention(config: Configuration, block: Block, rotary: Rotary) -> Attention:
    return block.attention(rotary, bias=config.flag("attention_bias", True))
