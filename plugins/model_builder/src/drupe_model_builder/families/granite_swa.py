"""Granite with sliding windows: Granite whose layers have windows, attention sinks, and rotary bases of their own."""

from __future__ import annotations

from collections.abc import Callable

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    attention_multiplier,
    layer_types,
    refuse_partial,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.families.granite import granite_ends
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer


def granite_swa(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    silu, mlp_bias = activation(config), config.flag("mlp_bias", False)
    attention, factor = windowed_attention(config, sizes), config.number("residual_multiplier", 1.0)

    def layer(block: Block) -> Layer:
        return block.pre_norm(attention(block), block.gated_mlp(silu, bias=mlp_bias), factor)

    return decoder(
        config,
        sizes,
        layer,
        **granite_ends(config),
        tied=config.flag("tie_word_embeddings", True),
    )


def windowed_attention(config: Configuration, sizes: Sizes) -> Callable[[Block], Attention]:
    """What gives the attention of a layer: with sinks, a window or none, and the layer's rotary base; 0 turns nothing.

    Without a list of bases, all layers have the one of the configuration.
    """
    bias, scale = config.flag("attention_bias", False), attention_multiplier(config)
    usual = ["sliding_attention" if layer % 4 else "full_attention" for layer in range(sizes.layers)]
    windows = windows_of(layer_types(config, usual), sliding_window(config, 128))
    refuse_partial(config, config.rope())
    thetas = config.get("layer_rope_theta") or [config.rope().number("rope_theta")] * sizes.layers
    if not isinstance(thetas, list) or len(thetas) != sizes.layers:
        raise config.mistake(f"layer_rope_theta wants a number for each of {sizes.layers} layers")

    def turned(theta: float) -> Rotary | None:
        rope = Configuration(
            config.path, {**config.rope(), "rope_theta": theta}, spelt={"rope_theta": "layer_rope_theta"}
        )
        return rotary(rope, sizes.head_dim, sizes.context_length) if theta else None

    def attention(block: Block) -> Attention:
        return block.attention(
            turned(thetas[block.number]),
            bias=bias,
            output_bias=bias,
            scale=scale,
            window=windows[block.number],
            sinks=f"{block.name}.self_attn.sinks",
        )

    return attention
