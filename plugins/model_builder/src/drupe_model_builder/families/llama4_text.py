"""Llama 4: experts that read weighted inputs, attention within chunks, and layers without rotation that read all.

Layers that rotate have an L2 norm of query and key behind the rotation; the queries of the others grow with the
position. Scout has experts on all layers, Maverick on every other one.
"""

from __future__ import annotations

from typing import Any

from drupe.api import counted, replace
from drupe_checkpoints import Configuration
from drupe_checkpoints.wording import shown
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import (
    activation,
    kinds_of_layers,
    layer_count,
    rotary_of,
    sizes_of,
    without_effect,
)
from drupe_model_builder.parts.attention import PositionScale
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.step import Layer

CHUNKED, FULL = "chunked_attention", "full_attention"
NAMES = Names(mlp="feed_forward")
EXPERTS = ExpertNames("feed_forward", "router", merged_at="feed_forward")
"""Checkpoints hold merged, transposed experts; those that were quantized later have tensors for each expert."""


def llama4_text(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131_072, kv_heads=8, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, theta=500_000.0, interleaved=True), activation(config)
    turns, sparse, chunk = _turning(config), _with_experts(config), _chunk(config, sizes)
    kinds = kinds_of_layers(config, (CHUNKED, FULL), [CHUNKED if each else FULL for each in turns])
    normed, grown = config.flag("use_qk_norm", True), _growing(config)
    bias, dense = config.flag("attention_bias", False), config.integer("intermediate_size_mlp", 16_384)
    many = expert_sizes(config, (16, 1, 8192), width="intermediate_size")
    without_effect(config, "for_llm_compressor")  # a form of the experts while they are quantized
    if any(sparse):
        refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        number, name = block.number, f"{block.name}.self_attn"
        norms: dict[str, Any] = {}
        if normed and turns[number]:
            norms = {
                f"{each}_norm": Norm(f"{name}.{each}_norm", (sizes.head_dim,), sizes.epsilon, weight=False)
                for each in ("query", "key")
            }
        attention = block.attention(
            rotary if turns[number] else None,
            bias=bias,
            output_bias=bias,
            norm_after_rotary=True,
            query_scale=None if turns[number] else grown,
            chunk=chunk if kinds[number] == CHUNKED else None,
            only_earlier=kinds[number] == CHUNKED,
            **norms,
        )
        if not sparse[number]:
            return block.pre_norm(attention, shared_mlp(block, NAMES.mlp, dense, silu))
        shared = shared_mlp(block, "feed_forward.shared_expert", many.width, silu)
        experts = experts_of(block, many, EXPERTS, shared=shared, score="sigmoid", chosen_by="logit", normalise=False)
        return block.pre_norm(attention, replace(experts, weighs_input=True))

    return decoder(config, sizes, layer, names=NAMES)


def _chunk(config: Configuration, sizes: Sizes) -> int | None:
    """How many tokens a chunk has; None where all that the model reads fit into one, and where it is null."""
    if "attention_chunk_size" in config and config["attention_chunk_size"] is None:
        return None
    size = config.integer("attention_chunk_size", 8192)
    return size if size < sizes.context_length else None


def _growing(config: Configuration) -> PositionScale | None:
    """How queries of layers without rotation grow with the position. Any number but 0 switches it on."""
    every, beta = config.integer("floor_scale", 8192), config.number("attn_scale", 0.1)
    switch = config.get("attn_temperature_tuning", True)
    if not isinstance(switch, bool | int):
        raise config.mistake(
            f"attn_temperature_tuning = {shown(switch)} in {config.path.name}: it must be true or false"
        )
    return PositionScale(beta, every, shift=1) if switch else None


def _turning(config: Configuration) -> list[bool]:
    """Whether each layer rotates, by `no_rope_layers`: 1 for those that do. It may name more layers than there are."""
    layers, interval = layer_count(config), config.integer("no_rope_layer_interval", 4)
    flags = config.get("no_rope_layers") or [int((number + 1) % interval != 0) for number in range(layers)]
    if not isinstance(flags, list) or len(flags) < layers or any(each not in (0, 1) for each in flags):
        raise config.mistake(f"no_rope_layers wants, for each of {counted(layers, 'layer')}, 0 or 1")
    return [bool(each) for each in flags[:layers]]


def _with_experts(config: Configuration) -> list[bool]:
    """Which layers have experts, by `moe_layers`, or every so many by `interleave_moe_layer_step`."""
    layers, named = layer_count(config), config.get("moe_layers")
    if named is None:
        step = config.integer("interleave_moe_layer_step", 1)
        return [(number + 1) % step == 0 for number in range(layers)]
    without_effect(config, "interleave_moe_layer_step")
    if not isinstance(named, list) or any(each not in range(layers) for each in named):
        raise config.mistake(f"moe_layers wants a list of numbers of layers, from 0 to {layers - 1}")
    return [number in named for number in range(layers)]
