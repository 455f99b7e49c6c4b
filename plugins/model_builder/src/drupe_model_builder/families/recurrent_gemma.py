"""RecurrentGemma (Griffin): Gemma with gated recurrences, and attention in a window on every third layer."""

from __future__ import annotations

import math

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    head_size,
    rotary_of,
    shared_by,
    sizes_of,
    sliding_window,
    without_effect,
)
from drupe_model_builder.families.gemma import NORMS, TANH
from drupe_model_builder.families.gemma2 import softcap
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.gated_recurrence import BlockGate, GatedRecurrence
from drupe_model_builder.parts.step import Layer, Mixer, pre

AT = "temporal_block"
NAMES = Names(attention=AT, mlp="mlp_block", final_norm="model.final_norm")
WORDS = ("recurrent", "attention")


def recurrent_gemma(config: Configuration) -> Decoder:
    config = config.with_spellings({"attention_window_size": "sliding_window"})
    sizes = _sizes(config)
    rotary, window = rotary_of(config, sizes, partial=0.5), sliding_window(config, 2048)
    gelu, bias = activation(config, key="hidden_activation", default=TANH), config.flag("attention_bias", False)
    width, kernel = config.integer("lru_width", sizes.hidden), config.integer("conv1d_width", 4)
    shared_by(config, width, sizes.heads, "num_attention_heads", "lru_width")
    attending = _attending(config, sizes)
    without_effect(config, "w_init_variance_scale", "final_w_init_variance_scale", "layers_block_type")

    def layer(block: Block) -> Layer:
        mixer: Mixer = (
            block.attention(rotary, bias=bias, output_bias=True, window=window)
            if attending[block.number]
            else _recurrence(block, gelu, width, kernel)
        )
        mlp = block.gated_mlp(gelu, bias=True)
        return block.layer(pre(block.norm("temporal_pre_norm"), mixer), pre(block.norm("channel_pre_norm"), mlp))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        embedding={"factor": _in_bfloat16(sizes.hidden**0.5)},
        head={"softcap": softcap(config, "logits_soft_cap", 30.0)},
        tied=config.flag("tie_word_embeddings", True),
    )


def _sizes(config: Configuration) -> Sizes:
    """The sizes. `intermediate_size` counts gate and up together, and heads share the hidden size."""
    sizes = sizes_of(config, context_length=8192)
    size = head_size(config, sizes.hidden, sizes.heads, "hidden_size", "num_attention_heads")
    return replace(sizes, head_dim=size, intermediate=sizes.intermediate // 2)


def _attending(config: Configuration, sizes: Sizes) -> tuple[bool, ...]:
    """Which layers have attention: `block_types` is repeated."""
    pattern = config.texts("block_types") or ("recurrent", "recurrent", "attention")
    if any(word not in WORDS for word in pattern):
        raise config.mistake(f"block_types wants words of {' and '.join(WORDS)}")
    return tuple(pattern[layer % len(pattern)] == "attention" for layer in range(sizes.layers))


def _recurrence(block: Block, gelu: str, width: int, kernel: int) -> GatedRecurrence:
    hidden, name = block.sizes.hidden, f"{block.name}.{AT}"

    def gate(kind: str) -> BlockGate:
        at, heads = f"{name}.rg_lru.{kind}_gate", block.sizes.heads
        return BlockGate(f"{at}_weight", f"{at}_bias", heads, width // heads)

    return GatedRecurrence(
        name,
        block.number,
        block.linear(f"{AT}.linear_y", width, hidden, bias=True),
        block.linear(f"{AT}.linear_x", width, hidden, bias=True),
        gelu,
        Convolution(f"{name}.conv_1d", block.number, kernel, ((f"{name}.conv_1d", width),), bias=True),
        gate("input"),
        gate("recurrent"),
        f"{name}.rg_lru.recurrent_param",
        block.linear(f"{AT}.linear_out", hidden, width, bias=True),
    )


def _in_bfloat16(number: float) -> float:
    """The number rounded to eight significant bits, as the class keeps the factor on the embedding."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * 256), exponent - 8)
