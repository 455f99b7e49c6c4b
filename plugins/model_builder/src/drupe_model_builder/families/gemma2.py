"""Gemma 2: Gemma with norms on the results, softcaps, and a sliding window on every other layer."""

from __future__ import annotations

from collections.abc import Callable

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
from drupe_model_builder.families.gemma import NORMS
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer, Mixer, both


def gemma2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, kv_heads=4, head_dim=256)
    rotary, windows = rotary_of(config, sizes), every_other_window(config, sizes)
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")

    def layer(block: Block) -> Layer:
        return sandwich(block, capped_attention(config, block, rotary, windows[block.number]), gelu)

    return gemma_decoder(config, sizes, layer, capped=30.0)


def gemma_decoder(config: Configuration, sizes: Sizes, layer: Callable[[Block], Layer], *, capped: float) -> Decoder:
    """What these families have around their layers. capped: the softcap of logits where config.json says nothing."""
    return decoder(
        config,
        sizes,
        layer,
        norms=NORMS,
        embedding={"factor": sizes.hidden**0.5},
        head={"softcap": softcap(config, "final_logit_softcapping", capped)},
        tied=config.flag("tie_word_embeddings", True),
    )


def sandwich(block: Block, attention: Mixer, gelu: str) -> Layer:
    """Norms before and after each half."""
    return block.layer(
        both(block.norm("input_layernorm"), attention, block.norm("post_attention_layernorm")),
        both(block.norm("pre_feedforward_layernorm"), block.gated_mlp(gelu), block.norm("post_feedforward_layernorm")),
    )


def capped_attention(config: Configuration, block: Block, rotary: Rotary, window: int | None) -> Attention:
    """Attention with a softcap, and with a scale of its own."""
    bias = config.flag("attention_bias", False)
    return block.attention(
        rotary,
        bias=bias,
        output_bias=bias,
        window=window,
        scale=config.number("query_pre_attn_scalar", 256, above=0) ** -0.5,
        softcap=softcap(config, "attn_logit_softcapping", 50.0),
    )


def every_other_window(config: Configuration, sizes: Sizes) -> tuple[int | None, ...]:
    """A window on the first layer, the third, ..."""
    usual = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(sizes.layers)]
    return windows_of(layer_types(config, usual), sliding_window(config, 4096))


def softcap(config: Configuration, key: str, default: float) -> float:
    """A softcap; 0 for null."""
    if key in config and config[key] is None:
        return 0.0
    return config.number(key, default, above=0) if default or key in config else 0.0
