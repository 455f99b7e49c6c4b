"""MiMo V2 Flash: windows and attention sinks on most layers, values smaller than keys, experts chosen by sigmoids.

Layers with a window have twice as many heads of keys and values.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    sigmoid_router,
)
from drupe_model_builder.configuration.latent import refuse_other_words
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    activation,
    flags_of_layers,
    layer_types,
    not_built,
    shared_by,
    sizes_of,
    sliding_window,
    without_effect,
)
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer

FULL, SLIDING = "full_attention", "sliding_attention"
BASES = {FULL: ("rope_theta", 5_000_000.0), SLIDING: ("swa_rope_theta", 10_000.0)}
"""The key of each type's rotary base in files that do not nest the parameters by type, and its default."""
SINKS = {FULL: ("add_full_attention_sink_bias", False), SLIDING: ("add_swa_attention_sink_bias", True)}
"""The key that gives a type of layer sinks, and its default."""
ROTATED = 0.334
"""The rotated share of a head: 64 of 192 elements."""
SINK = "self_attn.attention_sink_bias"
SPELLINGS = {"layernorm_epsilon": "rms_norm_eps"}


def mimo_v2_flash(config: Configuration) -> Decoder:
    config = config.with_spellings(SPELLINGS)
    sizes = sizes_of(config, context_length=131072, kv_heads=4, head_dim=192, epsilon=1e-5)
    values, of_type = config.integer("v_head_dim", 128), {FULL: sizes, SLIDING: _sliding_sizes(config, sizes)}
    types, window = _types(config, sizes), _window(config)
    rotaries = {kind: _rotary(config, kind, sizes) for kind in BASES}
    sinks = {kind: config.flag(key, usual) for kind, (key, usual) in SINKS.items()}
    silu, bias = activation(config), config.flag("attention_bias", False)
    # Attention is linear in its values, so their factor can stand behind it.
    factor = _or_one(config, "attention_value_scale", 0.707)
    many, sparse = expert_sizes(config, (256, 8, 2048)), _sparse(config)
    router = sigmoid_router(config, "gate.e_score_correction_bias", normalise=True)
    refuse_other_words(config, "topk_method", "noaux_tc")
    refuse_other_words(config, "scoring_func", "sigmoid")
    refuse_other_activations(config)
    without_effect(config, "attention_chunk_size", "hybrid_block_size")

    def layer(plain: Block) -> Layer:
        kind = types[plain.number]
        block = replace(plain, sizes=of_type[kind])
        attention = block.attention(
            rotaries[kind],
            bias=bias,
            value_dim=values,
            output=block.linear("self_attn.o_proj", sizes.hidden, sizes.heads * values, factor=factor),
            window=window if kind == SLIDING else None,
            sinks=f"{block.name}.{SINK}" if sinks[kind] else None,
        )
        return block.pre_norm(
            attention, experts_of(block, many, **router) if sparse[block.number] else block.gated_mlp(silu)
        )

    aliases = ((r"\.self_attn\.sinks$", f".{SINK}"),)
    return decoder(config, sizes, layer, ignored=(r"model\.mtp\..*",), aliases=aliases)


def _or_one(config: Configuration, key: str, default: float) -> float:
    """A factor, which null makes 1."""
    return 1.0 if key in config and config[key] is None else config.number(key, default)


def _types(config: Configuration, sizes: Sizes) -> tuple[str, ...]:
    """What each layer is. `hybrid_layer_pattern`, which the published files have, says 1 for a window."""
    usual = [SLIDING if layer and (layer + 1) % 6 else FULL for layer in range(sizes.layers)]
    slides = flags_of_layers(config, "hybrid_layer_pattern", [kind == SLIDING for kind in usual])
    return layer_types(config, [SLIDING if each else FULL for each in slides])


def _window(config: Configuration) -> int | None:
    """`sliding_window_size` counts the tokens before the current one, and decides where it is given."""
    if config.get("sliding_window_size") is not None:
        without_effect(config, "sliding_window")
        return config.integer("sliding_window_size") + 1
    return sliding_window(config, 129)


def _sliding_sizes(config: Configuration, sizes: Sizes) -> Sizes:
    """The sizes of layers with a window. Raises ModelError for heads that differ in more than those of keys."""
    for key, known in (("swa_num_attention_heads", sizes.heads), ("swa_head_dim", sizes.head_dim),
                       ("swa_v_head_dim", config.integer("v_head_dim", 128))):  # fmt: skip
        if config.integer(key, known) != known:
            cure = "choose another model"
            raise not_built(config, key, config[key], f"gives layers with a window other heads than {known}", cure)
    groups = config.integer("swa_num_key_value_heads", 2 * sizes.kv_heads, most=MOST_HEADS)
    return replace(sizes, kv_heads=shared_by(config, sizes.heads, groups, "swa_num_key_value_heads"))


def _rotary(config: Configuration, kind: str, sizes: Sizes) -> Rotary:
    """The rotary embedding of one type of layer."""
    if config.get("rope_scaling"):
        cure = "write rope_parameters with an object for each type of layer, as transformers 5 saves them"
        raise not_built(config, "rope_scaling", config["rope_scaling"], "stretches the rotary embedding", cure)
    key, usual = BASES[kind]
    share = config.number("partial_rotary_factor", ROTATED)
    own = {"rope_theta": config.number(key, usual), "partial_rotary_factor": share}
    nested = config.part("rope_parameters").part(kind)
    found = Configuration(config.path, {"rope_parameters": {**own, **nested}})
    return rotary(found.rope(), sizes.head_dim, sizes.context_length)


def _sparse(config: Configuration) -> tuple[bool, ...]:
    """Which layers have experts: all but the first, unless a list says it for each."""
    if isinstance(config.get("moe_layer_freq"), list) and config.get("mlp_layer_types") is None:
        return flags_of_layers(config, "moe_layer_freq", [])
    return after_first(config, default=1)
