"""Gemma 4: Gemma 3 with a norm of the value, heads and their size by kind of layer, and a factor on each layer.

The 12B and the 31B use keys as values on full layers. The small ones have inputs of their own for each layer, and their
last layers read the keys and values of earlier ones. The 26B has experts beside the MLP, which read the same state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from drupe.api import counted, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import ExpertSizes, MergedNames, expert_sizes, merged_experts
from drupe_model_builder.configuration.later_layers import (
    borrowed,
    layer_input_of,
    layer_inputs_of,
    sources_of,
    unread_of,
)
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    not_built,
    rotary_by_type,
    shared_by,
    sizes_of,
    sliding_window,
    with_rotary,
    without_effect,
)
from drupe_model_builder.families.gemma2 import sandwich, softcap
from drupe_model_builder.families.gemma3n_text import unscaled_attention
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.step import Branch, Layer, Mixer, Step, post

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
    kinds = (*layer_types(config, every(6, sizes.layers))[:-1], FULL)  # the last layer is full, whatever is said
    sources = sources_of(config, kinds)
    own = _sizes_by_layer(config, sizes, kinds, sources)
    attention = _attention_of(config, kinds, sources, own, window)
    size = config.get("hidden_size_per_layer_input") or 0
    size = config.integer("hidden_size_per_layer_input") if size else 0

    def layer(block: Block) -> Layer:
        block = replace(block, sizes=own[block.number])
        made = replace(sandwich(block, attention(block), gelu), factor=f"{block.name}.layer_scalar")
        if experts is not None:
            made = replace(made, steps=(made.steps[0], _with_experts(block, experts, gelu)))
        return _with_layer_input(made, block, size, gelu) if size else made

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": sizes.hidden**0.5},
        head={"softcap": softcap(config, "final_logit_softcapping", 0.0)},
        tied=config.flag("tie_word_embeddings", True),
        layer_inputs=layer_inputs_of(config, sizes, size) if size else None,
        ignored=unread_of(sources),
    )


def _sizes_by_layer(
    config: Configuration, sizes: Sizes, kinds: Sequence[str], sources: Mapping[int, int]
) -> list[Sizes]:
    """Each layer's own heads; layers that read keys and values of another may have an MLP of twice the width."""
    groups = sizes.kv_heads
    if _keys_are_values(config):
        groups = config.integer("num_global_key_value_heads", groups)
    own = [sizes_of_layer(config, sizes, number, kind, groups) for number, kind in enumerate(kinds)]
    _refuse_other_heads(config, sources, own)
    wider = 2 if config.flag("use_double_wide_mlp", False) else 1
    return [
        replace(each, intermediate=wider * sizes.intermediate) if number in sources else each
        for number, each in enumerate(own)
    ]


def _attention_of(
    config: Configuration, kinds: Sequence[str], sources: Mapping[int, int], own: Sequence[Sizes], window: int
) -> Callable[[Block], Mixer]:
    """What gives a layer its attention: with a window by the layer's kind, and with the keys and values of its source.

    sources: see `sources_of`. own: the sizes of the layers. window: the family's default.
    """
    told, both_ways = with_rotary(config, USUAL_ROTARY), _reads_later_tokens(config)
    slides = sliding_window(config, window)
    if both_ways and slides is not None:
        slides = slides // 2 + 2  # half of it and one more on each side

    def attention(block: Block) -> Mixer:
        kind, source = kinds[block.number], sources.get(block.number)
        rotary = rotary_by_type(told, block.sizes, sliding_theta=10_000.0, full_theta=1_000_000.0)[kind]
        reach = slides if kind == SLIDING else None
        made = unscaled_attention(config, block, rotary, reach, both_ways=both_ways)
        if kind == FULL and _keys_are_values(config):
            made = replace(made, value=replace(made.key, name=made.value.name))  # before the key's norm and rotation
        return made if source is None else borrowed(made, source, own[source])

    return attention


def _keys_are_values(config: Configuration) -> bool:
    """Whether the key's product is the value as well, in full layers."""
    return config.flag("attention_k_eq_v", False)


def _refuse_other_heads(config: Configuration, sources: Mapping[int, int], own: Sequence[Sizes]) -> None:
    """Raise ModelError for a layer whose queries do not fit the keys and values of the layer that it reads."""
    for number, source in sources.items():
        mine, theirs = (own[each].head_dim for each in (number, source))
        if mine != theirs:
            raise config.mistake(
                f"layer_types makes layer {number} read the keys and values of layer {source}, but per_layer_config "
                f"gives them heads of {mine} and of {theirs}"
            )
        shared_by(config, own[number].heads, own[source].kv_heads)


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


def _with_layer_input(layer: Layer, block: Block, size: int, gelu: str) -> Layer:
    """The layer with a last step that reads its own input. size: of that."""
    given = post(layer_input_of(block, size, gelu), block.norm("post_per_layer_input_norm"))
    return replace(layer, steps=(*layer.steps, given))


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
