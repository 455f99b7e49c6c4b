"""gpt-oss: windows on every other layer, attention sinks, biases everywhere, and experts with a limited activation.

Experts of 4 bits (MXFP4) are stored row by row; in floating point they are transposed.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import MergedNames, expert_sizes, merged_experts
from drupe_model_builder.configuration.reading import (
    every,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
    with_rotary,
)
from drupe_model_builder.parts.step import Layer

NAMES = MergedNames(
    "mlp",
    "mlp.router",
    "mlp.experts.gate_up_proj",
    "mlp.experts.down_proj",
    "mlp.experts.gate_up_proj_bias",
    "mlp.experts.down_proj_bias",
    interleaved=True,
    transposed=True,
)


USUAL_ROTARY = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def gpt_oss(config: Configuration) -> Decoder:
    config = with_rotary(config, USUAL_ROTARY)
    sizes = sizes_of(config, context_length=131072, kv_heads=8, head_dim=64, epsilon=1e-5)
    rotary, bias = rotary_of(config, sizes, theta=150_000.0), config.flag("attention_bias", True)
    windows = windows_of(layer_types(config, every(2, sizes.layers)), sliding_window(config, 128))
    many = expert_sizes(config, (128, 4, 2880), width="intermediate_size")
    names = NAMES if config.get("quantization_config") is None else replace(NAMES, transposed=False)
    slope, limit = config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0, above=0)

    def layer(block: Block) -> Layer:
        attention = block.attention(
            rotary,
            bias=bias,
            output_bias=bias,
            window=windows[block.number],
            sinks=f"{block.name}.self_attn.sinks",
        )
        experts = merged_experts(block, many, names, biases=True)
        return block.pre_norm(attention, replace(experts, slope=slope, offset=1.0, limit=limit))

    return decoder(config, sizes, layer)
