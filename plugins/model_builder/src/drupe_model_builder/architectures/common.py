"""Settings that all decoders of the Llama family read from config.json in the same way."""

from __future__ import annotations

from typing import Any

from drupe.api import ModelError
from drupe_checkpoints import Configuration, context_of
from drupe_model_builder.activations import ACTIVATIONS
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.recipe import DecoderRecipe

MOST_LAYERS = 10_000


def decoder(
    config: Configuration, *, context_length: int, kv_heads: int, head_dim: int | None = None, **differences: Any
) -> DecoderRecipe:
    """The recipe of a decoder of the Llama family.

    context_length, kv_heads, head_dim: the architecture's defaults for keys that config.json leaves out. A
    `num_key_value_heads` of null, and `head_dim` without a default, follow from the number of heads.
    differences: fields of the recipe that the architecture sets.
    """
    heads = config.integer("num_attention_heads")
    hidden = config.integer("hidden_size")
    groups = config.integer("num_key_value_heads", heads if "num_key_value_heads" in config else kv_heads)
    if heads % groups:
        raise config.mistake(f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {groups}")
    size = config.integer("head_dim", head_dim or hidden // heads)
    stated = config.integer("max_position_embeddings", context_length)
    settings: dict[str, Any] = {
        "model_type": config.text("model_type"),
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": config.integer("intermediate_size"),
        "heads": heads,
        "kv_heads": groups,
        "head_dim": size,
        "context_length": context_of(config, context_length),
        "windows": (None,) * layer_count(config),
        "rotary": rotary(config.rope(), size, stated),
        "norm_epsilon": config.number("rms_norm_eps", 1e-6),
        "activation": activation(config),
        "attention_scale": size**-0.5,
        "tied": config.flag("tie_word_embeddings", False),
    }
    return DecoderRecipe(**{**settings, **differences})


def layer_count(config: Configuration) -> int:
    return config.integer("num_hidden_layers", most=MOST_LAYERS)


def activation(config: Configuration) -> str:
    """The MLP's activation function. Raises ModelError for one that the builder does not support."""
    name = config.text("hidden_act", "silu")
    if name not in ACTIVATIONS:
        raise ModelError(
            f"the activation function hidden_act = '{name}' is not supported; supported: {', '.join(ACTIVATIONS)}",
            where=config.path,
            cure="correct hidden_act if it is misspelt; otherwise the model needs a plugin that supports it",
        )
    return name


def sliding_window(config: Configuration, default: int) -> int | None:
    """`sliding_window`: a missing key means the architecture's default, null means no window."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return None
    return config.integer("sliding_window", default)


def layer_windows(config: Configuration, window: int | None, first: int) -> tuple[int | None, ...]:
    """Each layer's sliding window, as Qwen configures it: by `layer_types`, or for the layers from `first` on."""
    layers = layer_count(config)
    types = config.texts("layer_types")
    if not types:
        return tuple(window if layer >= first else None for layer in range(layers))
    known = ("full_attention", "sliding_attention")
    if len(types) != layers or any(kind not in known for kind in types):
        raise config.mistake(f"layer_types wants, for each of {layers} layers, one of {' and '.join(known)}")
    return tuple(window if kind == "sliding_attention" else None for kind in types)
