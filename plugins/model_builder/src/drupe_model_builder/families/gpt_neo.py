"""GPT-Neo: LayerNorms, learned positions, attention without a scale, and windows on every other layer."""

from __future__ import annotations

from typing import Any

from drupe.api import counted
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes
from drupe_model_builder.configuration.reading import MOST_HEADS, MOST_LAYERS, activation, head_size, without_effect
from drupe_model_builder.families.gpt2 import gpt2_decoder
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(
    embedding="transformer.wte",
    layer="transformer.h.{}",
    attention="attn.attention",
    output="out_proj",
    up="c_fc",
    down="c_proj",
    final_norm="transformer.ln_f",
)
KINDS = ("global", "local")
USUAL: list[Any] = [[["global", "local"], 12]]
"""`attention_types`: lists of kinds of layers, each with how often it comes."""


def gpt_neo(config: Configuration) -> Decoder:
    without_effect(config, "attention_layers", "embed_dropout", "resid_dropout")  # the first follows from the types
    sizes = _sizes(config)
    gelu = activation(config, key="activation_function", default="gelu_new")
    window, kinds = config.integer("window_size", 256), _kinds(config, sizes.layers)

    def layer(block: Block) -> Layer:
        local = kinds[block.number] == "local"
        attention = block.attention(None, output_bias=True, scale=1.0, window=window if local else None)
        return block.layer(
            pre(block.norm("ln_1"), attention), pre(block.norm("ln_2"), block.plain_mlp(gelu, bias=True))
        )

    return gpt2_decoder(config, sizes, layer, NAMES)


def _kinds(config: Configuration, layers: int) -> list[str]:
    """What each layer's attention is: "global" or "local"."""
    given = config.get("attention_types")
    groups = USUAL if given is None else given
    if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
        raise config.mistake('attention_types wants groups such as [["global", "local"], 12]')
    kinds = [kind for names, times in groups for kind in names * times]
    if len(kinds) != layers:
        raise config.mistake(f"attention_types is for {counted(len(kinds), 'layer')}, and num_layers = {layers}")
    return kinds


def _is_group(group: object) -> bool:
    """Whether something is a list of kinds, with how often it comes."""
    match group:
        case [list(names), int(times)]:
            return not isinstance(times, bool) and 0 < times <= MOST_LAYERS and all(name in KINDS for name in names)
    return False


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("hidden_size", 2048), config.integer("num_heads", 16, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 50257),
        hidden=hidden,
        intermediate=config.integer("intermediate_size", 4 * hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_heads"),
        layers=config.integer("num_layers", 24, most=MOST_LAYERS),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )
