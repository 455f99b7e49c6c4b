"""Mamba 2, and the Mamba-2 mixer of the families that have some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from drupe.api import Record, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import layer_count, not_built, shared_by
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.mamba2 import Mamba2
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="backbone.embeddings", layer="backbone.layers.{}", attention="mixer", mlp="mixer",
              final_norm="backbone.norm_f")  # fmt: skip
UNLIMITED = 1 << 20
"""The context length of a model that has no positions and no key-value cache: what fits into genai_config.json."""
INPUTS = ("z", "x", "B", "C", "dt")
"""What the rows of `in_proj` give, in their order."""


class MambaSizes(Record):
    """The sizes of a Mamba-2 mixer. limits: of the time step."""

    heads: int
    head_dim: int
    groups: int
    state_size: int
    kernel: int
    bias: bool
    convolution_bias: bool
    limits: tuple[float, float] = (0.0, math.inf)

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def mamba2(config: Configuration) -> Decoder:
    sizes = state_space_sizes(config)
    heads = config.integer("num_heads", 128)
    mamba = MambaSizes(
        heads=heads,
        head_dim=config.integer("head_dim", 64),
        groups=shared_by(config, heads, config.integer("n_groups", 8), "n_groups", "num_heads"),
        state_size=config.integer("state_size", 128),
        kernel=config.integer("conv_kernel", 4),
        bias=config.flag("use_bias", False),
        convolution_bias=config.flag("use_conv_bias", True),
        limits=time_limits(config),
    )
    refuse_activation(config)

    def layer(block: Block) -> Layer:
        return block.layer(pre(block.norm("norm"), mixer_of(block, mamba, "mixer")))

    return decoder(config, sizes, layer, names=NAMES)


def hybrid_sizes(config: Configuration, width: int | None = None) -> MambaSizes:
    """The mixer's sizes, with the keys that hybrids have for them. width: by default `mamba_expand` * hidden size."""
    heads = config.integer("mamba_n_heads", 128)
    wide = width or config.integer("mamba_expand", 2) * config.integer("hidden_size")
    automatic = config.get("mamba_d_head", "auto") == "auto"
    refuse_activation(config)
    return MambaSizes(
        heads=heads,
        head_dim=wide // heads if automatic else config.integer("mamba_d_head"),
        groups=shared_by(config, heads, config.integer("mamba_n_groups", 1), "mamba_n_groups", "mamba_n_heads"),
        state_size=config.integer("mamba_d_state", 256),
        kernel=config.integer("mamba_d_conv", 4),
        bias=config.flag("mamba_proj_bias", False),
        convolution_bias=config.flag("mamba_conv_bias", True),
        limits=time_limits(config),
    )


def mixer_of(
    block: Block,
    sizes: MambaSizes,
    name: str,
    *,
    normed: bool = True,
    output_bias: bool | None = None,
    factors: Sequence[float] = (1.0,) * len(INPUTS),
    **differences: Any,
) -> Mamba2:
    """The mixer of a layer. name: within the layer. factors: on z, x, B, C and the time step."""
    hidden, full = block.sizes.hidden, f"{block.name}.{name}"
    groups = sizes.groups * sizes.state_size
    rows = one_after_another([sizes.width, sizes.width, groups, groups, sizes.heads])
    called = [f"{name}.in_proj.{each}" for each in INPUTS]
    z, x, b, c, step = (
        replace(each, factor=factor)
        for each, factor in zip(
            block.split(f"{name}.in_proj", hidden, rows, called, bias=sizes.bias), factors, strict=True
        )
    )
    mixed = Convolution(
        f"{full}.conv1d",
        block.number,
        sizes.kernel,
        ((f"{full}.conv1d", sizes.width + 2 * groups),),
        bias=sizes.convolution_bias,
        activation="silu",
    )
    return Mamba2(
        full,
        block.number,
        (z, x, b, c, step),
        mixed,
        f"{full}.A_log",
        f"{full}.dt_bias",
        f"{full}.D",
        block.linear(f"{name}.out_proj", hidden, sizes.width, sizes.bias if output_bias is None else output_bias),
        heads=sizes.heads,
        head_dim=sizes.head_dim,
        groups=sizes.groups,
        state_size=sizes.state_size,
        norm=block.norm(f"{name}.norm", sizes.width) if normed else None,
        limits=sizes.limits,
        **differences,
    )


def time_limits(config: Configuration) -> tuple[float, float]:
    """`time_step_limit`: the smallest and the largest time step. transformers 5 writes infinity as an object."""
    value = config.get("time_step_limit")
    if value is None:
        return 0.0, math.inf
    limits = [_limit(each) for each in value] if isinstance(value, list) else []
    if len(limits) == 2 and all(isinstance(each, int | float) for each in limits) and 0 <= limits[0] < limits[1]:
        return float(limits[0]), float(limits[1])
    raise config.mistake("time_step_limit wants two numbers, the smaller one first")


def _limit(value: Any) -> Any:
    return math.inf if value in ("inf", "Infinity", {"__float__": "Infinity"}) else value


def refuse_activation(config: Configuration, key: str = "hidden_act") -> None:
    """Raise ModelError for another activation of the convolution than silu."""
    name = config.text(key, "silu")
    if name not in ("silu", "swish"):
        raise not_built(
            config,
            key,
            name,
            "names another activation of the convolution than silu",
            f"correct {key} if it is misspelt; otherwise the model needs a plugin that supports it",
        )


def state_space_sizes(config: Configuration) -> Sizes:
    """The sizes of a decoder without attention and MLP."""
    hidden = config.integer("hidden_size")
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=hidden,
        heads=1,
        kv_heads=1,
        head_dim=hidden,
        layers=layer_count(config),
        context_length=UNLIMITED,
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )
