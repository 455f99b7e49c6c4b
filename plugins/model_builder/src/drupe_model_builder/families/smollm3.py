"""SmolLM3: Llama of which every fourth layer has no rotary embedding."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    flags_of_layers,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.parts.step import Layer


def smollm3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=4)
    rotary, silu = rotary_of(config, sizes, theta=2_000_000.0), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    every = config.integer("no_rope_layer_interval", 4)
    rotates = flags_of_layers(config, "no_rope_layers", [bool((at + 1) % every) for at in range(sizes.layers)])
    window = sliding_window(config, 4096) if "sliding_window" in config else None
    slides = config.flag("use_sliding_window", False) and window is not None
    usual = ["sliding_attention" if slides and not each else "full_attention" for each in rotates]
    windows = windows_of(layer_types(config, usual), window)  # layer_types counts without use_sliding_window

    def layer(block: Block) -> Layer:
        own = rotary if rotates[block.number] else None
        attention = block.attention(own, bias=bias, output_bias=bias, window=windows[block.number])
        return block.pre_norm(attention, block.gated_mlp(silu, bias=mlp_bias))

    return decoder(config, sizes, layer, tied=config.flag("tie_word_embeddings", True))
