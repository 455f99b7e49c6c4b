"""What many families read from config.json in the same way: sizes, windows, the activation, the rotary embedding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from drupe.api import ModelError, counted
from drupe_checkpoints import Configuration, context_of
from drupe_checkpoints.configuration import DEFAULT_ROPE_THETA
from drupe_model_builder.configuration.block import Sizes
from drupe_model_builder.frequencies import PROPORTIONAL, refuse_unknown_type, rotary
from drupe_model_builder.parts.activations import ACTIVATIONS
from drupe_model_builder.parts.rotary import Rotary

MOST_LAYERS = 10_000
MOST_HEADS = 65_536
TYPES = ("full_attention", "sliding_attention")


def sizes_of(
    config: Configuration,
    *,
    context_length: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    epsilon: float = 1e-6,
    epsilon_key: str = "rms_norm_eps",
    grouped: bool = True,
) -> Sizes:
    """The sizes, with the names that Llama has for them.

    context_length, kv_heads, head_dim, epsilon: the family's defaults for keys that config.json leaves out. A
    `num_key_value_heads` of null, and `head_dim` without a default, follow from the number of heads.
    grouped: whether the family knows `num_key_value_heads`; otherwise each head has its own keys and values.
    """
    heads = config.integer("num_attention_heads", most=MOST_HEADS)
    hidden = config.integer("hidden_size")
    usual = heads if "num_key_value_heads" in config else kv_heads or heads
    groups = shared_by(config, heads, config.integer("num_key_value_heads", usual)) if grouped else heads
    if head_dim is None and config.get("head_dim") is None and heads > hidden:
        raise config.mistake(f"num_attention_heads = {heads} is more than hidden_size = {hidden}")
    stated = config.integer("max_position_embeddings", context_length)
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        heads=heads,
        kv_heads=groups,
        head_dim=config.integer("head_dim", head_dim or hidden // heads),
        layers=layer_count(config),
        context_length=context_of(config, context_length),
        epsilon=config.epsilon(epsilon_key, epsilon),
        stated_length=stated,
    )


def shared_by(
    config: Configuration,
    heads: int,
    groups: int,
    groups_key: str = "num_key_value_heads",
    heads_key: str = "num_attention_heads",
) -> int:
    """`groups`, which share the heads. Raises ModelError where they cannot."""
    if heads % groups:
        raise config.mistake(f"{heads_key} = {heads} is not a multiple of {groups_key} = {groups}")
    return groups


def head_size(config: Configuration, hidden: int, heads: int, hidden_key: str, heads_key: str) -> int:
    """The size of a head in families that have no key for it. Raises ModelError where it is no whole number."""
    shared_by(config, hidden, heads, heads_key, hidden_key)
    return hidden // heads


def sinusoid_width(config: Configuration, key: str, usual: int, least: int = 2) -> int:
    """The width of a model that adds a sine and a cosine for each frequency. Raises ModelError for an odd one.

    least: the smallest width from which the family's frequencies follow.
    """
    width = config.integer(key, usual)
    if width % 2:
        raise not_built(config, key, width, "leaves a sine without a cosine", "choose another model")
    if width < least:
        raise not_built(config, key, width, "is too narrow for two frequencies", "choose another model")
    return width


def not_built(config: Configuration, key: str, value: object, means: str, cure: str) -> ModelError:
    """The error for a key of config.json that asks for what is not built for a family. means: what it asks for."""
    return ModelError(
        f"{key} = {json.dumps(value)} in {config.path.name} {means}, which is not supported for "
        f"{config.get('model_type')} models",
        where=config.path,
        cure=cure,
    )


def layer_count(config: Configuration) -> int:
    return config.integer("num_hidden_layers", most=MOST_LAYERS)


def rotary_of(
    config: Configuration,
    sizes: Sizes,
    *,
    partial: float | None = None,
    theta: float = DEFAULT_ROPE_THETA,
    interleaved: bool = False,
) -> Rotary:
    """The rotary embedding. theta: the default for the base.

    partial: the default for the rotated share of a head; None for a family that rotates whole heads only.
    """
    rope = config.rope(1.0 if partial is None else partial, theta)
    if partial is None:
        refuse_partial(config, rope)
    return rotary(rope, sizes.head_dim, sizes.stated_length or sizes.context_length, interleaved=interleaved)


def with_rotary(config: Configuration, usual: Mapping[str, object]) -> Configuration:
    """The configuration with the family's own rotary parameters, where config.json has none. A base alone is none."""
    if config.get("rope_parameters") or config.get("rope_scaling"):
        return config
    return config.with_values({"rope_parameters": dict(usual)})


def refuse_partial(config: Configuration, rope: Configuration) -> None:
    """Raise ModelError for a share of a head that is rotated, in a family that rotates whole heads."""
    refuse_unknown_type(rope)
    share = rope.number("partial_rotary_factor")
    if share != 1.0:
        raise not_built(
            config,
            "partial_rotary_factor",
            share,
            "rotates a part of each head",
            "remove the key if the model was trained with whole heads rotated; otherwise it needs a plugin that builds "
            "it",
        )


def rotary_by_type(
    config: Configuration, sizes: Sizes, *, sliding_theta: float, full_theta: float, local_key: str = ""
) -> dict[str, Rotary]:
    """The rotary embedding of each type of layer: "sliding_attention" and "full_attention".

    transformers 5 nests the parameters by type. transformers 4 has one set, which is that of the full layers; the
    sliding ones are not scaled, and have the base of the key `local_key`, or their default without one.
    Raises ModelError for parameters that are not nested, and for a base that the sliding layers may or may not have.
    """
    nested = config.part("rope_parameters")
    if nested and not set(TYPES) & set(nested):
        raise config.mistake(f"rope_parameters wants an object for each of {' and '.join(TYPES)}")
    full = {**(nested.section("full_attention") or {}), **(config.section("rope_scaling") or {})}
    sliding = dict(nested.section("sliding_attention") or {})
    if full.get("rope_theta") is None:
        full["rope_theta"] = config.number("rope_theta", full_theta)
    if sliding.get("rope_theta") is None:
        sliding["rope_theta"] = config.number(local_key, sliding_theta) if local_key else sliding_theta
        if not local_key and config.number("rope_theta", sliding_theta) != sliding_theta:
            raise ModelError(
                f"rope_theta = {config['rope_theta']}: transformers 4 gives this base to all layers, transformers 5 to "
                f"the full ones only, and {sliding_theta:g} to the sliding ones",
                where=config.path,
                cure='write rope_parameters with both types: {"full_attention": {"rope_type": "default", '
                '"rope_theta": ...}, "sliding_attention": {...}}',
            )
    stated = sizes.stated_length or sizes.context_length
    found = {"full_attention": full, "sliding_attention": sliding}
    return {kind: _whole_heads(config, each, sizes.head_dim, stated) for kind, each in found.items()}


def _whole_heads(config: Configuration, parameters: Mapping[str, object], head_dim: int, stated: int) -> Rotary:
    """The rotary embedding with these parameters, which rotates a part of each head in one type only."""
    share = config.get("partial_rotary_factor")
    rope = Configuration(config.path, {"partial_rotary_factor": share, "rope_parameters": dict(parameters)}).rope()
    if rope.get("rope_type") != PROPORTIONAL:
        refuse_partial(config, rope)
    return rotary(rope, head_dim, stated)


def flags_of_layers(config: Configuration, key: str, default: list[bool]) -> tuple[bool, ...]:
    """One flag for each layer, from a list of 0 and 1."""
    value, layers = config.get(key), layer_count(config)
    flags = default if value is None else value
    if not isinstance(flags, list) or len(flags) != layers or any(each not in (0, 1) for each in flags):
        raise config.mistake(f"{key} wants, for each of {counted(layers, 'layer')}, 0 or 1")
    return tuple(map(bool, flags))


def activation(config: Configuration, key: str = "hidden_act", default: str = "silu") -> str:
    """The MLP's activation function. Raises ModelError for one that the builder does not support."""
    name = config.text(key, default)
    if name not in ACTIVATIONS:
        raise ModelError(
            f"the activation function {key} = '{name}' in {config.path.name} is not supported; supported: "
            + ", ".join(ACTIVATIONS),
            where=config.path,
            cure=f"correct {key} if it is misspelt; otherwise the model needs a plugin that supports it",
        )
    return name


def without_effect(config: Configuration, *keys: str) -> None:
    """Keys of the family that change nothing in this model: they are known.

    They are for training alone, transformers reads them nowhere, or another key switches off what they are for.
    """
    for key in keys:
        config.get(key)


def attention_multiplier(config: Configuration) -> float:
    """Granite's scale of attention. Null is an error: of transformers' ways to compute attention, it stops one."""
    if "attention_multiplier" in config and config["attention_multiplier"] is None:
        raise config.mistake("attention_multiplier = null: it must be a number")
    return config.number("attention_multiplier", 1.0)


def sliding_window(config: Configuration, default: int) -> int | None:
    """`sliding_window`: a missing key means the family's default, null means no window."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return None
    return config.integer("sliding_window", default)


def layer_types(config: Configuration, default: list[str]) -> tuple[str, ...]:
    """Whether each layer slides, by `layer_types`: "full_attention" or "sliding_attention"."""
    return kinds_of_layers(config, TYPES, default)


def kinds_of_layers(
    config: Configuration, known: Sequence[str], default: Sequence[str], key: str = "layer_types"
) -> tuple[str, ...]:
    """What each layer is, from a list of words. known: the family's words. default: where the key is missing."""
    layers = layer_count(config)
    kinds = tuple(default) if config.get(key) is None else config.texts(key)
    if len(kinds) != layers or any(kind not in known for kind in kinds):
        raise config.mistake(f"{key} wants, for each of {counted(layers, 'layer')}, one of {' and '.join(known)}")
    return kinds


def every(number: int, layers: int) -> list[str]:
    """Sliding layers, and a full one at every `number`-th place."""
    return ["full_attention" if (layer + 1) % number == 0 else "sliding_attention" for layer in range(layers)]


def windows_of(types: tuple[str, ...], window: int | None) -> tuple[int | None, ...]:
    """Each layer's window: sliding layers have one."""
    return tuple(window if kind == "sliding_attention" else None for kind in types)
