"""Muse Glimmer (its text model): norms before and after, gated attention, windows, full layers without rotation."""

from __future__ import annotations

from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.families.gemma2 import softcap
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.step import Layer, both

PLUS_ONE = {"offset": 1.0}
"""The layers' norms store the weight minus one; the last norm stores the weight."""


def muse_glimmer_text(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131_072, kv_heads=2, head_dim=128, epsilon=1e-5)
    silu, bias = activation(config, key="hidden_activation"), config.flag("attention_bias", False)
    every_fourth = [(sizes.layers - 1 - layer) % 4 == 0 for layer in range(sizes.layers)]  # counted from the last
    usual = ["full_attention" if full else "sliding_attention" for full in every_fourth]
    windows = windows_of(layer_types(config, usual), sliding_window(config, 2048))
    rotary, turns = rotary_of(config, sizes), _turning(config, sizes, every_fourth)
    scale = config.number("qk_scale_factor", 3.87) * sizes.head_dim**-0.5
    behind: dict[str, Any] = {"epsilon": config.epsilon("post_norm_eps", 1e-8), **PLUS_ONE}

    def layer(block: Block) -> Layer:
        name = f"{block.name}.self_attn"
        query, key = (Norm(f"{name}.{each}_norm", (sizes.head_dim,), sizes.epsilon, weight=False) for each in "qk")
        attention = block.attention(
            rotary if turns[block.number] else None,
            bias=bias,
            output_bias=bias,
            window=windows[block.number],
            scale=scale,
            query_norm=query,
            key_norm=key,
            gate=block.linear("self_attn.gate_proj", sizes.query, sizes.hidden),
        )
        first, second = "post_attention_layernorm", "post_feedforward_layernorm"
        return block.layer(
            both(block.norm("input_layernorm"), attention, block.norm(first, **behind)),
            both(block.norm("pre_feedforward_layernorm"), block.gated_mlp(silu), block.norm(second, **behind)),
        )

    made = decoder(
        config,
        sizes,
        layer,
        norms=PLUS_ONE,
        embedding={"norm": Norm("model.embed_norm", (sizes.hidden,), sizes.epsilon, weight=False)},
        head={
            "factor": config.number("output_multiplier", 0.19611613513818404),
            "softcap": softcap(config, "final_logit_softcapping", 20.0),
        },
    )
    return replace(made, final_norm=replace(made.final_norm, offset=0.0))


def _turning(config: Configuration, sizes: Sizes, full: list[bool]) -> list[bool]:
    """Whether each layer rotates, by `layer_rope_theta`: all that do have the base of `rope_parameters`."""
    base = config.rope().number("rope_theta")
    bases = config.get("layer_rope_theta") or [0 if each else base for each in full]
    if not isinstance(bases, list) or len(bases) != sizes.layers or any(each not in (0, base) for each in bases):
        raise config.mistake(f"layer_rope_theta wants, for each of {sizes.layers} layers, 0 or rope_theta = {base:g}")
    return [each != 0 for each in bases]
