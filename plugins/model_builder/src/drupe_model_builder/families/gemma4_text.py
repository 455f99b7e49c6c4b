"""Gemma 4: Gemma 3 with a norm of the value, heads and their size by kind of layer, and a factor on each layer.

The 12B and the 31B use keys as values on full layers. The small ones have inputs of their own for each layer, and their
last layers read the keys and values of earlier ones. The 26B has experts beside the MLP, which read the same state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from drupe.api import counted
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import ExpertSizes, MergedNames, expert_sizes, merged_experts
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    not_built,
    rotary_by_type,
    sizes_of,
    sliding_window,
    with_rotary,
    without_effect,
)
from drupe_model_builder.families.gemma2 import sandwich, softcap
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.layer_inputs import LayerInput, LayerInputs
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.state import KeyValueState
from drupe_model_builder.parts.step import Branch, Layer, Step, post

FULL, SLIDING = "full_attention", "sliding_attention"
USUAL_ROTARY = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.25},
}
EXPERTS = MergedNames("", "router.proj", "experts.gate_up_proj", "experts.down_proj")
BOTH_WAYS = "use_bidirectional_attention"
"""With "all", each token reads later ones; with "vision", only the tokens of an image read one another."""


def gemma4_text(config: Configuration) -> Decoder:
    if config.flag("enable_moe_block", False):
        experts = expert_sizes(config, None)
    else:
        experts = None
        without_effect(config, "top_k_experts")  # of the form with experts
    return _decoder(config.with_defaults({"hidden_size_per_layer_input": 256}), 512, experts)


def gemma4_unified_text(config: Configuration) -> Decoder:
    if config.flag("enable_moe_block", False):
        raise not_built(
            config, "enable_moe_block", True, "asks for experts", "correct enable_moe_block if it is a mistake"
        )
    return _decoder(config, 1024, None)


def _decoder(config: Configuration, window: int, experts: ExpertSizes | None) -> Decoder:
    """window: the family's default. experts: beside the MLP; None for no experts."""
    sizes = sizes_of(config, context_length=131_072, kv_heads=4, head_dim=256)
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")
    kinds = layer_types(config, [*every(6, sizes.layers)[:-1], FULL])
    shares = config.flag("attention_k_eq_v", False)
    groups = config.integer("num_global_key_value_heads", sizes.kv_heads) if shares else sizes.kv_heads
    own = {number: sizes_of_layer(config, sizes, number, kind, groups) for number, kind in enumerate(kinds)}
    told = with_rotary(config, USUAL_ROTARY)
    slides = sliding_window(config, window)
    both_ways = _reads_later_tokens(config)
    if both_ways and slides is not None:
        slides = slides // 2 + 2  # half of it and one more on each side
    sources, bias = _sources(config, kinds), config.flag("attention_bias", False)
    size = config.get("hidden_size_per_layer_input") or 0
    size = config.integer("hidden_size_per_layer_input") if size else 0
    wider = 2 if config.flag("use_double_wide_mlp", False) else 1

    def rotary(each: Sizes, kind: str) -> Rotary:
        return rotary_by_type(told, each, sliding_theta=10_000.0, full_theta=1_000_000.0)[kind]

    def layer(block: Block) -> Layer:
        kind, block = kinds[block.number], replace(block, sizes=own[block.number])
        source = sources.get(block.number)
        if source is not None:
            block = replace(block, sizes=replace(block.sizes, intermediate=wider * sizes.intermediate))
        attention = block.attention(
            rotary(block.sizes, kind),
            bias=bias,
            output_bias=bias,
            head_norm=True,
            scale=1.0,
            window=slides if kind == SLIDING else None,
            both_ways=both_ways,
            value_norm=Norm(f"{block.name}.self_attn.v_norm", (block.sizes.head_dim,), sizes.epsilon, weight=False),
        )
        if shares and kind == FULL:
            attention = _keys_as_values(attention)
        mixer = attention if source is None else _borrowed(attention, source, own[source])
        made = replace(sandwich(block, mixer, gelu), factor=f"{block.name}.layer_scalar")
        if experts is not None:
            made = replace(made, steps=(made.steps[0], _with_experts(block, experts, gelu)))
        return made if not size else replace(made, steps=(*made.steps, _layer_input(block, size, gelu)))

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": sizes.hidden**0.5},
        head={"softcap": softcap(config, "final_logit_softcapping", 0.0)},
        tied=config.flag("tie_word_embeddings", True),
        layer_inputs=_layer_inputs(config, sizes, size) if size else None,
        ignored=_unread(sources),
    )


def _reads_later_tokens(config: Configuration) -> bool:
    value = config.get(BOTH_WAYS)
    if value not in (None, False, "vision", "all"):
        raise config.mistake(f'{BOTH_WAYS} wants "all", "vision" or null, not {json.dumps(value)}')
    return bool(value == "all")


def _with_experts(block: Block, sizes: ExpertSizes, gelu: str) -> Step:
    """The MLP and experts beside it, each between norms of its own. The router reads the residual."""
    hidden = block.sizes.hidden
    router = Norm(f"{block.name}.router.norm", (hidden,), block.sizes.epsilon, tensor=f"{block.name}.router.scale")
    made = merged_experts(block, sizes, EXPERTS, norm=router, expert_factors=f"{block.name}.router.per_expert_scale")
    product = replace(made.router.linear, factor=hidden**-0.5)
    made = replace(
        made,
        router=replace(made.router, linear=product),
        activation=gelu,
        before=block.norm("pre_feedforward_layernorm_2"),
    )
    branches = (
        Branch(
            block.gated_mlp(gelu),
            before=block.norm("pre_feedforward_layernorm"),
            after=block.norm("post_feedforward_layernorm_1"),
        ),
        Branch(made, after=block.norm("post_feedforward_layernorm_2")),
    )
    return Step(branches, after=block.norm("post_feedforward_layernorm"))


def _sources(config: Configuration, kinds: tuple[str, ...]) -> dict[int, int]:
    """For each of the last layers that read keys and values of another: the last layer of its kind before them all."""
    count = config.get("num_kv_shared_layers") or 0
    count = config.integer("num_kv_shared_layers", most=len(kinds) - 1) if count else 0
    first = len(kinds) - count
    last = {kind: number for number, kind in enumerate(kinds[:first])}
    if missing := [kind for kind in kinds[first:] if kind not in last]:
        raise config.mistake(f"num_kv_shared_layers = {count} leaves no layer of the kind {missing[0]} to read from")
    return {number: last[kinds[number]] for number in range(first, len(kinds))}


def _unread(sources: Mapping[int, int]) -> tuple[str, ...]:
    """The tensors of keys and values that checkpoints hold for layers that read those of another."""
    numbers = "|".join(map(str, sources))
    return (rf"model\.layers\.({numbers})\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\..*",) if sources else ()


def _borrowed(attention: Attention, source: int, sizes: Sizes) -> BorrowedAttention:
    """Attention's query over the keys and values of the layer `source`, which has these sizes."""
    assert attention.rotary is not None and attention.query_norm is not None
    return BorrowedAttention(
        attention.name,
        KeyValueState(source, sizes.kv_heads, sizes.head_dim),
        attention.query,
        attention.output,
        attention.heads,
        attention.scale,
        attention.rotary,
        attention.query_norm,
        attention.window,
        attention.both_ways,
    )


def _layer_inputs(config: Configuration, sizes: Sizes, size: int) -> LayerInputs:
    wide = sizes.layers * size
    projection = "model.per_layer_model_projection"
    return LayerInputs(
        "model.embed_tokens_per_layer.weight",
        config.integer("vocab_size_per_layer_input", 262_144),
        sizes.layers,
        size,
        size**0.5,
        Linear(projection, Rows(f"{projection}.weight", (wide, sizes.hidden)), factor=sizes.hidden**-0.5),
        Norm("model.per_layer_projection_norm", (size,), sizes.epsilon),
    )


def _layer_input(block: Block, size: int, gelu: str) -> Step:
    hidden = block.sizes.hidden
    part = LayerInput(
        f"{block.name}.per_layer_input",
        block.number,
        block.linear("per_layer_input_gate", size, hidden),
        block.linear("per_layer_projection", hidden, size),
        gelu,
    )
    return post(part, block.norm("post_per_layer_input_norm"))


def _keys_as_values(attention: Attention) -> Attention:
    """The key's product is the value as well, before the key's norm and rotation."""
    return replace(attention, value=replace(attention.key, name=attention.value.name))


def sizes_of_layer(config: Configuration, sizes: Sizes, number: int, kind: str, full_groups: int) -> Sizes:
    """A layer's own heads: transformers 5 keeps them by layer, the hub has keys for all full layers.

    full_groups: how many keys and values full layers have, where they are not kept by layer.
    """
    layers = config.get("per_layer_config")
    if layers is not None:
        if not isinstance(layers, Mapping) or not all(isinstance(each, Mapping) for each in layers.values()):
            raise config.mistake("per_layer_config wants an object for each layer that differs")
        found = Configuration(config.path, layers.get(str(number), {}))
        head_dim = found.integer("head_dim", sizes.head_dim)
        groups = found.integer("num_key_value_heads", sizes.kv_heads)
    elif kind == FULL:
        head_dim = config.integer("global_head_dim", 512)
        groups = full_groups
    else:
        return sizes
    if sizes.heads % groups:
        raise config.mistake(f"{counted(sizes.heads, 'head')} cannot share {groups} keys and values in layer {number}")
    return replace(sizes, head_dim=head_dim, kv_heads=groups)
