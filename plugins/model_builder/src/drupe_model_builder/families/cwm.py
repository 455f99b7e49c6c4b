"""Code World Model: Llama 3 with a sliding window on three of four layers."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
    with_rotary,
)
from drupe_model_builder.parts.step import Layer

USUAL_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def cwm(config: Configuration) -> Decoder:
    config = with_rotary(config, USUAL_ROTARY)
    sizes = sizes_of(config, context_length=131072, kv_heads=8, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, theta=1_000_000.0), activation(config)
    usual = ["sliding_attention" if layer % 4 else "full_attention" for layer in range(sizes.layers)]
    windows = windows_of(layer_types(config, usual), sliding_window(config, 8192))

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, window=windows[block.number]), block.gated_mlp(silu))

    return decoder(config, sizes, layer)
