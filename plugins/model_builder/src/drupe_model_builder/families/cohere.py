"""Cohere (Command R): attention and MLP side by side after one LayerNorm, and neighbours are rotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    rotary_of,
    sizes_of,
)
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Branch, Layer, side_by_side

NORMS = {"kind": "layer"}


def cohere(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, epsilon=1e-5, epsilon_key="layer_norm_eps")
    rotary = rotary_of(config, sizes, interleaved=True, theta=500_000.0)
    return side_by_side_decoder(config, sizes, [rotary] * sizes.layers, [None] * sizes.layers)


def side_by_side_decoder(
    config: Configuration, sizes: Sizes, rotaries: Sequence[Rotary | None], windows: Sequence[int | None]
) -> Decoder:
    """A decoder of the family, with the rotary embedding and the window of each layer."""
    silu, bias = activation(config), config.flag("attention_bias", False)
    normed = config.flag("use_qk_norm", False)

    def head_norm(block: Block, name: str, heads: int) -> Norm:
        return Norm(f"{block.name}.self_attn.{name}", (heads, sizes.head_dim), sizes.epsilon, kind="layer")

    def layer(block: Block) -> Layer:
        norms: dict[str, Any] = {}
        if normed:
            norms = {
                "query_norm": head_norm(block, "q_norm", sizes.heads),
                "key_norm": head_norm(block, "k_norm", sizes.kv_heads),
            }
        attention = block.attention(
            rotaries[block.number], bias=bias, output_bias=bias, window=windows[block.number], **norms
        )
        mlp = block.gated_mlp(silu)
        return block.layer(side_by_side(block.norm("input_layernorm"), Branch(attention), Branch(mlp)))

    return decoder(
        config,
        sizes,
        layer,
        norms=NORMS,
        head={"factor": config.number("logit_scale", 0.0625)},
        tied=config.flag("tie_word_embeddings", True),
    )
