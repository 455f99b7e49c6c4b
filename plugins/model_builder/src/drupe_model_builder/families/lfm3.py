"""LFM3: short convolutions, windows and full attention, with a gate for each head, and norms before and after."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    kinds_of_layers,
    rotary_by_type,
    sizes_of,
    sliding_window,
    with_rotary,
)
from drupe_model_builder.families.lfm2 import CONVOLUTION, is_tied, short_convolution
from drupe_model_builder.parts.step import Layer, Mixer, step

NAMES = Names(mlp="feed_forward", gate="w1", up="w3", down="w2", final_norm="model.embedding_norm")
FULL, SLIDING = "full_attention", "sliding_attention"
USUAL_ROTARY = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.5},
}
ALIASES = ((r"\.self_attn\.g_proj\.", ".self_attn.gate_proj."),)


def lfm3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=128_000, kv_heads=4, head_dim=128, epsilon=1e-5, epsilon_key="norm_eps")
    config = with_rotary(config, USUAL_ROTARY)
    rotaries = rotary_by_type(config, sizes, sliding_theta=10_000.0, full_theta=1_000_000.0)
    kinds, window = kinds_of_layers(config, (CONVOLUTION, SLIDING, FULL), _usual(sizes)), sliding_window(config, 256)
    gated, sandwiched = config.flag("use_attention_gate", True), config.flag("use_sandwich_norm", True)
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        kind = kinds[block.number]
        mixer: Mixer
        if kind == CONVOLUTION:
            mixer = short_convolution(config, block, kernel=7)
        else:
            mixer = block.attention(
                rotaries[kind],
                bias=bias,
                output_bias=bias,
                head_norm=True,
                window=window if kind == SLIDING else None,
                gate=block.linear("self_attn.gate_proj", sizes.heads, sizes.hidden) if gated else None,
            )
        return block.layer(
            step(
                mixer,
                before=block.norm("operator_norm"),
                after=block.norm("post_operator_norm") if sandwiched else None,
            ),
            step(
                block.gated_mlp("silu"),
                before=block.norm("ffn_norm"),
                after=block.norm("post_ffn_norm") if sandwiched else None,
            ),
        )

    return decoder(config, sizes, layer, names=NAMES, tied=is_tied(config), aliases=ALIASES)


def _usual(sizes: Sizes) -> list[str]:
    """Full attention on the third of four layers, windows on the first, but not on the very first."""
    return [
        FULL if layer % 4 == 2 else SLIDING if layer % 4 == 0 and layer else CONVOLUTION
        for layer in range(sizes.layers)
    ]
