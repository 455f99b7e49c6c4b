"""LFM2: short convolutions, and attention on some layers. One form has experts."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.experts import ExpertNames, after_first, expert_sizes, experts_of
from drupe_model_builder.configuration.reading import kinds_of_layers, rotary_of, sizes_of, without_effect
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.short_conv import ShortConv
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(output="out_proj", query_norm="q_layernorm", key_norm="k_layernorm", mlp="feed_forward", gate="w1",
              up="w3", down="w2", final_norm="model.embedding_norm")  # fmt: skip
EXPERTS = ExpertNames("feed_forward", "gate", "w1", "w3", "w2", merged_at="feed_forward")
THETA = 1e6
CONVOLUTION, ATTENTION = "conv", "full_attention"
OF_ADJUSTING = ("block_ffn_dim_multiplier", "block_multiple_of")
"""Keys that count where `block_auto_adjust_ff_dim` has the MLP's width worked out."""


def lfm2(config: Configuration) -> Decoder:
    wide = config.with_values({"intermediate_size": _intermediate(config)})
    sizes = sizes_of(wide, context_length=128_000, kv_heads=8, epsilon=1e-5, epsilon_key="norm_eps")
    kinds, rotary = layer_kinds(config, sizes), rotary_of(config, sizes, theta=THETA)
    without_effect(config, *OF_ADJUSTING)

    def layer(block: Block) -> Layer:
        mixer = mixer_of(config, block, kinds[block.number], rotary)
        return block.layer(
            pre(block.norm("operator_norm"), mixer), pre(block.norm("ffn_norm"), block.gated_mlp("silu"))
        )

    return decoder(config, sizes, layer, names=NAMES, tied=is_tied(config))


def lfm2_moe(config: Configuration) -> Decoder:
    """With experts after the first layers."""
    sizes = sizes_of(config, context_length=128_000, kv_heads=8, epsilon=1e-5, epsilon_key="norm_eps")
    kinds, rotary = layer_kinds(config, sizes), rotary_of(config, sizes, theta=THETA)
    many, sparse = expert_sizes(config, (32, 4, 1792)), after_first(config, "num_dense_layers", 2)
    bias = "expert_bias" if config.flag("use_expert_bias", True) else None
    normalise, factor = config.flag("norm_topk_prob", True), config.number("routed_scaling_factor", 1.0)

    def layer(block: Block) -> Layer:
        mixer = mixer_of(config, block, kinds[block.number], rotary)
        mlp = block.gated_mlp("silu")
        experts = experts_of(
            block, many, EXPERTS, score="sigmoid", choice_bias=bias, normalise=normalise, factor=factor
        )
        return block.layer(
            pre(block.norm("operator_norm"), mixer),
            pre(block.norm("ffn_norm"), experts if sparse[block.number] else mlp),
        )

    return decoder(config, sizes, layer, names=NAMES, tied=is_tied(config))


def mixer_of(config: Configuration, block: Block, kind: str, rotary: Rotary) -> ShortConv | Attention:
    """A layer's mixer: attention, or a convolution."""
    return block.attention(rotary, head_norm=True) if kind == ATTENTION else short_convolution(config, block, kernel=3)


def short_convolution(config: Configuration, block: Block, kernel: int) -> ShortConv:
    """A layer's convolution. kernel: how many tokens it reads where config.json does not say it."""
    hidden, bias = block.sizes.hidden, config.flag("conv_bias", False)
    full = f"{block.name}.conv"
    mixed = Convolution(
        f"{full}.conv", block.number, config.integer("conv_L_cache", kernel), ((f"{full}.conv", hidden),), bias
    )
    return ShortConv(
        full,
        block.linear("conv.in_proj", 3 * hidden, hidden, bias),
        mixed,
        block.linear("conv.out_proj", hidden, hidden, bias),
    )


def layer_kinds(config: Configuration, sizes: Sizes) -> tuple[str, ...]:
    """What each layer has, by `layer_types`, or by `full_attn_idxs` in older files."""
    attends = list(range(sizes.layers)) if config.get("full_attn_idxs") is None else config["full_attn_idxs"]
    if not isinstance(attends, list) or any(each not in range(sizes.layers) for each in attends):
        raise config.mistake(f"full_attn_idxs wants a list of numbers of layers below {sizes.layers}")
    usual = [ATTENTION if layer in attends else CONVOLUTION for layer in range(sizes.layers)]
    return kinds_of_layers(config, (CONVOLUTION, ATTENTION), usual)


def is_tied(config: Configuration) -> bool:
    """LFM2 spells the key in its own way, and is tied where both are missing."""
    return config.flag("tie_embedding", config.flag("tie_word_embeddings", True))


def _intermediate(config: Configuration) -> int:
    """The MLP's width, which follows from that in config.json unless it is not adjusted."""
    wide = config.integer("block_ff_dim", config.integer("intermediate_size", 12288))
    if not config.flag("block_auto_adjust_ff_dim", True):
        return wide
    wide = int(2 * wide / 3)
    if "block_ffn_dim_multiplier" in config and config["block_ffn_dim_multiplier"] is None:
        return wide
    wide = int(wide * config.number("block_ffn_dim_multiplier", 1.0, above=0))
    multiple = config.integer("block_multiple_of", 256)
    return multiple * -(-wide // multiple)
