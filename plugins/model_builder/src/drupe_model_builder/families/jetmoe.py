"""JetMoE: experts in the MLP and in attention, where they make queries and results over keys and values of all."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    ExpertSizes,
    MergedNames,
    expert_sizes,
    merged_experts,
    refuse_other_activations,
)
from drupe_model_builder.configuration.reading import MOST_HEADS, layer_count, rotary_of, without_effect
from drupe_model_builder.parts.expert_attention import ExpertAttention
from drupe_model_builder.parts.experts import Matrices
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.router import Router
from drupe_model_builder.parts.rows import Rows, one_after_another
from drupe_model_builder.parts.step import Layer, pre

NAMES = MergedNames("mlp", "mlp.router.layer", "mlp.input_linear.weight", "mlp.output_linear.weight")
EPSILON = 1e-6
"""Of the norms in layers, whatever `rms_norm_eps` says."""


def jetmoe(config: Configuration) -> Decoder:
    many = expert_sizes(config, (8, 2, 5632), width="intermediate_size")
    sizes = _sizes(config, many)
    rotary = rotary_of(config, sizes)
    refuse_other_activations(config, "activation_function")
    without_effect(config, "aux_loss_coef", "num_attention_heads")

    def layer(block: Block) -> Layer:
        experts = replace(merged_experts(block, many, NAMES), bias=f"{block.name}.mlp.bias")
        return block.layer(
            pre(block.norm("input_layernorm", epsilon=EPSILON), _attention(block, many, rotary)),
            pre(block.norm("post_attention_layernorm", epsilon=EPSILON), experts),
        )

    return decoder(config, sizes, layer, tied=config.flag("tie_word_embeddings", True))


def _attention(block: Block, many: ExpertSizes, rotary: Rotary) -> ExpertAttention:
    sizes, at = block.sizes, "self_attention.experts"

    def matrices(name: str, rows: int, columns: int) -> Matrices:
        tensor, shape = f"{block.name}.{at}.{name}.weight", (many.count, rows, columns)
        return Matrices(tuple(Rows(tensor, shape, index=number) for number in range(many.count)))

    halves = one_after_another([sizes.key, sizes.key])
    called = ("self_attention.k_proj", "self_attention.v_proj")
    key, value = block.split("self_attention.kv_proj", sizes.hidden, halves, called)
    return ExpertAttention(
        f"{block.name}.self_attention",
        block.number,
        Router(block.linear(f"{at}.router.layer", many.count, sizes.hidden), many.chosen),
        matrices("input_linear", sizes.key, sizes.hidden),
        key,
        value,
        matrices("output_linear", sizes.hidden, sizes.key),
        f"{block.name}.{at}.bias",
        sizes.kv_heads,
        sizes.head_dim,
        sizes.head_dim**-0.5,
        rotary,
    )


def _sizes(config: Configuration, many: ExpertSizes) -> Sizes:
    groups = config.integer("num_key_value_heads", 16, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 32000),
        hidden=config.integer("hidden_size", 2048),
        intermediate=many.width,
        heads=groups * many.chosen,
        kv_heads=groups,
        head_dim=config.integer("kv_channels", 128),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 4096),
        epsilon=config.epsilon("rms_norm_eps", 1e-6),
    )
