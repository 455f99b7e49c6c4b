"""Jamba: Mamba 1 with norms inside, attention without positions on every eighth layer, and experts on every second."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    expert_sizes,
    experts_of,
    refuse_other_activations,
)
from drupe_model_builder.configuration.reading import activation, sizes_of, without_effect
from drupe_model_builder.families.mamba import NORMED, WITHOUT_EFFECT, StateSpaces, mixer_of, rank_of
from drupe_model_builder.families.mamba2 import refuse_activation
from drupe_model_builder.parts.step import Layer, Mixer, pre

NAMES = Names(mlp="feed_forward", final_norm="model.final_layernorm")
EXPERTS = ExpertNames("feed_forward", router="router", merged_at="feed_forward")
OF_EXPERTS = ("num_experts_per_tok", "expert_layer_offset", "expert_layer_period")


def jamba(config: Configuration) -> Decoder:
    sizes, silu = sizes_of(config, context_length=262_144, kv_heads=8), activation(config)
    spaces = StateSpaces(
        width=config.integer("mamba_expand", 2) * sizes.hidden,
        rank=rank_of(config, "mamba_dt_rank"),
        state_size=config.integer("mamba_d_state", 16),
        kernel=config.integer("mamba_d_conv", 4),
        bias=config.flag("mamba_proj_bias", False),
        convolution_bias=config.flag("mamba_conv_bias", True),
    )
    attending = _every(config, "attn_layer", (8, 4))
    many, sparse = None, frozenset[int]()
    if config.integer("num_experts", 16) > 1:
        many, sparse = expert_sizes(config, (16, 2, 14336), width="intermediate_size"), _every(config, "expert_layer")
        refuse_other_activations(config)
    refuse_activation(config)
    without_effect(config, *WITHOUT_EFFECT, *OF_EXPERTS)

    def layer(block: Block) -> Layer:
        mixer: Mixer = block.attention(None) if block.number in attending else _mamba(block, spaces)
        sparse_here = many is not None and block.number in sparse
        mlp = experts_of(block, many, EXPERTS, normalise=False) if many and sparse_here else block.gated_mlp(silu)
        return block.layer(pre(block.norm("input_layernorm"), mixer), pre(block.norm("pre_ff_layernorm"), mlp))

    return decoder(config, sizes, layer, names=NAMES)


def _mamba(block: Block, spaces: StateSpaces) -> Mixer:
    """The mixer, with norms of the time step's latent, of B and of C."""
    named = zip(NORMED, spaces.normed, strict=True)
    return mixer_of(block, "mamba", spaces, tuple(block.norm(f"mamba.{each}_layernorm", size) for each, size in named))


def _every(config: Configuration, kind: str, usual: tuple[int, int] = (2, 1)) -> frozenset[int]:
    """The layers of a kind, by the keys of its period and of its offset. usual: both by default."""
    period, offset = config.integer(f"{kind}_period", usual[0]), config.get(f"{kind}_offset", usual[1])
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < period:
        raise config.mistake(
            f"{kind}_offset = {offset} is not a whole number from 0 to {kind}_period - 1 = {period - 1}"
        )
    return frozenset(range(offset, config.integer("num_hidden_layers"), period))
