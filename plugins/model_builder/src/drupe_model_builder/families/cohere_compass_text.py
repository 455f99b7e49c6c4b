"""The text part of Cohere's North models: Cohere 2 whose halves are rotated, each type of layer in its own way."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Sizes
from drupe_model_builder.configuration.reading import (
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
    without_effect,
)
from drupe_model_builder.families.cohere import side_by_side_decoder
from drupe_model_builder.parts.rotary import Rotary


def cohere_compass_text(config: Configuration) -> Decoder:
    usual = {"logit_scale": 1.0} if config.get("logit_scale") is None else {}
    config = config.with_values({**usual, "use_qk_norm": False})
    sizes = sizes_of(config, context_length=8192, epsilon=1e-5, epsilon_key="layer_norm_eps")
    types = layer_types(config, ["full_attention"] * sizes.layers)
    rotaries = {kind: _rotary(config, sizes, kind) for kind in dict.fromkeys(types)}
    without_effect(config, "pooling")  # of its classifier
    windows = windows_of(types, sliding_window(config, 4096))
    return side_by_side_decoder(config, sizes, [rotaries[kind] for kind in types], windows)


def _rotary(config: Configuration, sizes: Sizes, kind: str) -> Rotary | None:
    """The rotary embedding of a type of layer, from `rope_parameters`; null there means none."""
    nested = config.part("rope_parameters")
    if kind in nested and nested[kind] is None:
        return None
    own = nested.section(kind)
    if own is None:
        raise config.mistake(f"rope_parameters wants an object or null for {kind}")
    return rotary_of(config.with_values({"rope_parameters": dict(own)}), sizes)
