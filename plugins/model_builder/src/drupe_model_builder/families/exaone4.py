"""EXAONE 4: norms on the results only and of each head's query and key; full layers have no rotary embedding.

That holds of the models with sliding windows. Without a window all layers rotate.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.parts.step import Layer, post


def exaone4(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    rotary, silu, window = rotary_of(config, sizes), activation(config), sliding_window(config, 4096)
    types = layer_types(config, _pattern(config, sizes.layers, window))

    def layer(block: Block) -> Layer:
        slides = types[block.number] == "sliding_attention"
        attention = block.attention(
            rotary if slides or window is None else None, head_norm=True, window=window if slides else None
        )
        return block.layer(
            post(attention, block.norm("post_attention_layernorm")),
            post(block.gated_mlp(silu), block.norm("post_feedforward_layernorm")),
        )

    return decoder(config, sizes, layer)


def _pattern(config: Configuration, layers: int, window: int | None) -> list[str]:
    """The types of the layers by `sliding_window_pattern`: a number, or letters such as LLLG.

    With letters, the last layer is full.
    """
    pattern = config.get("sliding_window_pattern", 4)
    if window is None or not pattern:
        return ["full_attention"] * layers
    if not isinstance(pattern, str):
        return every(config.integer("sliding_window_pattern", 4), layers)
    slides = [pattern[layer % len(pattern)] == "L" and layer < layers - 1 for layer in range(layers)]
    return ["sliding_attention" if each else "full_attention" for each in slides]
