"""Cohere 2: Cohere with sliding windows, whose full layers have no rotary embedding."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.reading import every, layer_types, rotary_of, sizes_of, sliding_window
from drupe_model_builder.families.cohere import side_by_side_decoder


def cohere2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, head_dim=None, epsilon=1e-5, epsilon_key="layer_norm_eps")
    rotary, window = rotary_of(config, sizes, interleaved=True), sliding_window(config, 4096)
    pattern = config.integer("sliding_window_pattern", 4)
    slides = [kind == "sliding_attention" for kind in layer_types(config, every(pattern, sizes.layers))]
    return side_by_side_decoder(
        config, sizes, [rotary if each else None for each in slides], [window if each else None for each in slides]
    )
