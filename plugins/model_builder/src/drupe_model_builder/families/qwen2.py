"""Qwen2 and Qwen2.5: Llama with biases on query, key and value, and optional sliding windows on the upper layers."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    layer_count,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.parts.step import Layer


def qwen2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=32)
    rotary, silu, windows = rotary_of(config, sizes), activation(config), upper_windows(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, bias=True, window=windows[block.number]), block.gated_mlp(silu))

    return decoder(config, sizes, layer)


def upper_windows(config: Configuration) -> tuple[int | None, ...]:
    """The sliding windows of Qwen2 and Qwen3: by `layer_types`, or on the layers from `max_window_layers` on.

    `sliding_window` has no effect without `use_sliding_window`.
    """
    layers = layer_count(config)
    first = 0 if config.get("max_window_layers") == 0 else config.integer("max_window_layers", 28)
    upper = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    types, window = layer_types(config, upper), sliding_window(config, 4096)
    return windows_of(types, window if config.flag("use_sliding_window", False) else None)
