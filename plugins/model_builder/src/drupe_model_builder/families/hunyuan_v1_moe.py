"""Hunyuan MoE (`hunyuan_v1_moe`): Hunyuan with experts and a shared one on all layers."""

from __future__ import annotations

from drupe.api import counted
from drupe_checkpoints import Configuration
from drupe_checkpoints.configuration import LARGEST
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    MOST_EXPERTS,
    ExpertNames,
    ExpertSizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.hunyuan_v1_dense import NAMES
from drupe_model_builder.parts.step import Layer

EXPERTS = ExpertNames(router="gate.wg")


def hunyuan_v1_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    count, chosen = (_of_layers(config, key, sizes.layers, most=MOST_EXPERTS) for key in ("num_experts", "moe_topk"))
    width = _of_layers(config, "moe_intermediate_size", sizes.layers, sizes.intermediate)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, norm_after_rotary=True)
        at = block.number
        if chosen[at] > count[at]:
            raise config.mistake(f"moe_topk = {chosen[at]} is more than num_experts = {count[at]} in layer {at}")
        shared = shared_mlp(block, "mlp.shared_mlp", sizes.intermediate, silu)
        return block.pre_norm(
            attention, experts_of(block, ExpertSizes(count[at], chosen[at], width[at]), EXPERTS, shared=shared)
        )

    return decoder(config, sizes, layer, names=NAMES)


def _of_layers(config: Configuration, key: str, layers: int, default: int = 1, most: int = LARGEST) -> list[int]:
    """A number for each layer: the key holds one for all, or a list."""
    value = config.get(key, default)
    if not isinstance(value, list):
        return [config.integer(key, default, most=most)] * layers
    if len(value) < layers or not all(isinstance(each, int) and 0 < each <= most for each in value):
        raise config.mistake(f"{key} wants a number from 1 to {most} for each of {counted(layers, 'layer')}")
    return value[:layers]
