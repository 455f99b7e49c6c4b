"""Mamba 1: state spaces with a decay for each element, without attention and MLP."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import without_effect
from drupe_model_builder.families.mamba2 import NAMES, refuse_activation, state_space_sizes
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.mamba1 import Mamba1
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer, pre

WITHOUT_EFFECT = (
    "intermediate_size", "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min",
    "time_step_scale", "use_associative_scan", "use_falcon_mambapy", "use_mambapy",
)  # fmt: skip
"""Settings of the training, and of how transformers computes the same. The width follows from `expand`."""
ALIASES = ((r"^backbone\.embedding\.", "backbone.embeddings."),)


def mamba(config: Configuration) -> Decoder:
    return state_spaces(config, None)


def state_spaces(config: Configuration, norm_epsilon: float | None) -> Decoder:
    """norm_epsilon: of norms without weights inside the mixer; None without these."""
    sizes = state_space_sizes(config)
    width = int(config.number("expand", 2, above=0) * sizes.hidden)
    automatic = config.get("time_step_rank", "auto") in ("auto", None)
    rank = -(-sizes.hidden // 16) if automatic else config.integer("time_step_rank")
    size, kernel = config.integer("state_size", 16), config.integer("conv_kernel", 4)
    bias, mixed_bias = config.flag("use_bias", False), config.flag("use_conv_bias", True)
    refuse_activation(config)
    without_effect(config, *WITHOUT_EFFECT)

    def mixer(block: Block) -> Mamba1:
        name, hidden = f"{block.name}.mixer", sizes.hidden
        called = ["mixer.in_proj.x", "mixer.in_proj.gate"]
        x, gate = block.split("mixer.in_proj", hidden, one_after_another([width] * 2), called, bias=bias)
        pieces = ((f"{name}.conv1d", width),)
        return Mamba1(
            name,
            block.number,
            (x, gate),
            Convolution(f"{name}.conv1d", block.number, kernel, pieces, bias=mixed_bias, activation="silu"),
            block.linear("mixer.x_proj", rank + 2 * size, width),
            block.linear("mixer.dt_proj", width, rank, bias=True),
            f"{name}.A_log",
            f"{name}.D",
            block.linear("mixer.out_proj", hidden, width, bias),
            size,
            _norms(name, (rank, size, size), norm_epsilon),
        )

    def layer(block: Block) -> Layer:
        return block.layer(pre(block.norm("norm"), mixer(block)))

    tied = config.flag("tie_word_embeddings", True)
    return decoder(config, sizes, layer, names=NAMES, tied=tied, aliases=ALIASES)


def _norms(name: str, widths: tuple[int, ...], epsilon: float | None) -> tuple[Norm, ...]:
    """Norms of the time step's latent, of B and of C."""
    if epsilon is None:
        return ()
    return tuple(
        Norm(f"{name}.{each}_layernorm", (width,), epsilon, weight=False)
        for each, width in zip(("dt", "b", "c"), widths, strict=True)
    )
