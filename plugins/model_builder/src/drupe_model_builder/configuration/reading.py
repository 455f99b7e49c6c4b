"""What many families read from config.json in the same way: sizes, windows, the activation, the rotary embedding."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import ModelError
from drupe_checkpoints import Configuration, context_of
from drupe_checkpoints.configuration import DEFAULT_ROPE_THETA
from drupe_model_builder.configuration.block import Sizes
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.activations import ACTIVATIONS
from drupe_model_builder.parts.rotary import Rotary

MOST_LAYERS = 10_000


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
    heads = config.integer("num_attention_heads")
    hidden = config.integer("hidden_size")
    usual = heads if "num_key_value_heads" in config else kv_heads or heads
    groups = config.integer("num_key_value_heads", usual) if grouped else heads
    if heads % groups:
        raise config.mistake(f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {groups}")
    stated = config.integer("max_position_embeddings", context_length)
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        heads=heads,
        kv_heads=groups,
        head_dim=config.integer("head_dim", head_dim or hidden // heads),
        layers=layer_count(config),
        context_length=stated if _differs_by_type(config) else context_of(config, context_length),
        epsilon=config.number(epsilon_key, epsilon),
        stated_length=stated,
    )


def _differs_by_type(config: Configuration) -> bool:
    """Whether rotary parameters are nested by the type of layer: they extend no context then."""
    found = config.section("rope_parameters")
    return found is not None and any(isinstance(value, dict) for value in found.values())


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
    if partial is None and rope.number("partial_rotary_factor") != 1.0:
        raise ModelError(
            "partial_rotary_factor is not supported for this architecture",
            where=rope.path,
            cure="choose a model that rotates whole heads",
        )
    return rotary(rope, sizes.head_dim, sizes.stated_length or sizes.context_length, interleaved=interleaved)


def rotary_by_type(
    config: Configuration, sizes: Sizes, *, sliding_theta: float, full_theta: float, local_key: str = ""
) -> dict[str, Rotary]:
    """The rotary embedding of each type of layer: "sliding_attention" and "full_attention".

    transformers 5 nests the parameters by type. transformers 4 has one set, which is that of the full layers; the
    sliding ones are not scaled, and have the base of the key `local_key`, or that of the full ones without one.
    """
    nested = config.section("rope_parameters") or Configuration(config.path, {})
    found: dict[str, Rotary] = {}
    for kind, theta in (("sliding_attention", sliding_theta), ("full_attention", full_theta)):
        own = nested.section(kind)
        if own is not None:
            rope = Configuration(config.path, {"rope_parameters": dict(own)}).rope(theta=theta)
        elif kind == "full_attention":
            rope = config.rope(theta=theta)
        else:
            base = config.number(local_key, theta) if local_key else config.rope(theta=theta).number("rope_theta")
            rope = Configuration(config.path, {"rope_theta": base}).rope()
        found[kind] = rotary(rope, sizes.head_dim, sizes.stated_length or sizes.context_length)
    return found


def flags_of_layers(config: Configuration, key: str, default: list[bool]) -> tuple[bool, ...]:
    """One flag for each layer, from a list of 0 and 1."""
    value, layers = config.get(key), layer_count(config)
    flags = default if value is None else value
    if not isinstance(flags, list) or len(flags) != layers or any(each not in (0, 1) for each in flags):
        raise config.mistake(f"{key} wants, for each of {layers} layers, 0 or 1")
    return tuple(map(bool, flags))


def activation(config: Configuration, key: str = "hidden_act", default: str = "silu") -> str:
    """The MLP's activation function. Raises ModelError for one that the builder does not support."""
    name = config.text(key, default)
    if name not in ACTIVATIONS:
        raise ModelError(
            f"the activation function {key} = '{name}' is not supported; supported: {', '.join(ACTIVATIONS)}",
            where=config.path,
            cure=f"correct {key} if it is misspelt; otherwise the model needs a plugin that supports it",
        )
    return name


def sliding_window(config: Configuration, default: int) -> int | None:
    """`sliding_window`: a missing key means the family's default, null means no window."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return None
    return config.integer("sliding_window", default)


def layer_types(config: Configuration, default: list[str]) -> tuple[str, ...]:
    """Whether each layer slides, by `layer_types`: "full_attention" or "sliding_attention"."""
    layers = layer_count(config)
    types = config.texts("layer_types") or tuple(default)
    known = ("full_attention", "sliding_attention")
    if len(types) != layers or any(kind not in known for kind in types):
        raise config.mistake(f"layer_types wants, for each of {layers} layers, one of {' and '.join(known)}")
    return types


def kinds_of_layers(
    config: Configuration, known: Sequence[str], default: Sequence[str], key: str = "layer_types"
) -> tuple[str, ...]:
    """What each layer is, from a list of words. known: the family's words. default: where the key is missing."""
    layers = layer_count(config)
    kinds = config.texts(key) or tuple(default)
    if len(kinds) != layers or any(kind not in known for kind in kinds):
        raise config.mistake(f"{key} wants, for each of {layers} layers, one of {' and '.join(known)}")
    return kinds


def every(number: int, layers: int) -> list[str]:
    """Sliding layers, and a full one at every `number`-th place."""
    return ["full_attention" if (layer + 1) % number == 0 else "sliding_attention" for layer in range(layers)]


def windows_of(types: tuple[str, ...], window: int | None) -> tuple[int | None, ...]:
    """Each layer's window: sliding layers have one."""
    return tuple(window if kind == "sliding_attention" else None for kind in types)
