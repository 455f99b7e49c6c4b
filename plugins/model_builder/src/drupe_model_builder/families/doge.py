"""Doge: Qwen3 whose keys add a bias to their products, made from their values, and a factor on each residual element.

It shuts out the smallest biases beyond `keep_window_size` tokens; the context ends there.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    not_built,
    rotary_of,
    sizes_of,
    sliding_window,
    without_effect,
)
from drupe_model_builder.parts.key_bias import KeyBias
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer, pre

OF_EXPERTS = ("num_experts", "num_experts_per_tok", "norm_topk_prob")


def doge(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    kept = config.integer("keep_window_size", 2048)
    sizes = replace(sizes, context_length=min(sizes.context_length, kept), stated_length=sizes.stated_length)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    window = sliding_window(config, 0) if config.get("sliding_window") is not None else None
    if config.flag("is_moe", False):
        cure = "choose a checkpoint without experts, such as Doge-160M"
        raise not_built(config, "is_moe", True, "mixes the choice of experts between the tokens of a call", cure)
    without_effect(config, *OF_EXPERTS)

    def layer(block: Block) -> Layer:
        attention = block.attention(
            rotary,
            bias=bias,
            output_bias=bias,
            head_norm=True,
            window=window,
            key_bias=KeyBias(
                f"{block.name}.self_attn.bias",
                block.linear("self_attn.dt_proj", sizes.kv_heads, sizes.key, bias),
                f"{block.name}.self_attn.A",
            ),
        )

        def factor(name: str) -> Rows:
            return Rows(f"{block.name}.{name}", (sizes.hidden,))

        return block.layer(
            replace(pre(block.norm("input_layernorm"), attention), residual=factor("input_residual")),
            replace(
                pre(block.norm("post_attention_layernorm"), block.gated_mlp(silu, bias=mlp_bias)),
                residual=factor("post_attention_residual"),
            ),
        )

    return decoder(config, sizes, layer)
