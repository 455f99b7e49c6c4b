"""Mamba 1: state spaces with a decay for each element, without attention and MLP."""

from __future__ import annotations

from drupe.api import Record
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
    "time_step_scale", "use_associative_scan", "use_falcon_mambapy", "use_mamba_kernels", "use_mambapy",
)  # fmt: skip
"""Settings of the training, and of how transformers computes the same. The width follows from `expand`."""
ALIASES = ((r"^backbone\.embedding\.", "backbone.embeddings."),)
NORMED = ("dt", "b", "c")
"""What has norms inside the mixer of some families: the time step's latent, B and C."""


class StateSpaces(Record):
    """The sizes of a Mamba mixer. rank: of the time step's latent. bias: of the products with the hidden state."""

    width: int
    rank: int
    state_size: int
    kernel: int
    bias: bool
    convolution_bias: bool

    @property
    def normed(self) -> tuple[int, int, int]:
        """How many elements what may be normed has."""
        return self.rank, self.state_size, self.state_size


def mamba(config: Configuration) -> Decoder:
    return state_spaces(config, None)


def state_spaces(config: Configuration, norm_epsilon: float | None) -> Decoder:
    """norm_epsilon: of norms without weights inside the mixer; None without these."""
    sizes = state_space_sizes(config)
    spaces = StateSpaces(
        width=int(config.number("expand", 2, above=0) * sizes.hidden),
        rank=rank_of(config, "time_step_rank"),
        state_size=config.integer("state_size", 16),
        kernel=config.integer("conv_kernel", 4),
        bias=config.flag("use_bias", False),
        convolution_bias=config.flag("use_conv_bias", True),
    )
    refuse_activation(config)
    without_effect(config, *WITHOUT_EFFECT)

    def norms(block: Block) -> tuple[Norm, ...]:
        if norm_epsilon is None:
            return ()
        named = zip(NORMED, spaces.normed, strict=True)
        return tuple(
            Norm(f"{block.name}.mixer.{each}_layernorm", (size,), norm_epsilon, weight=False) for each, size in named
        )

    def layer(block: Block) -> Layer:
        return block.layer(pre(block.norm("norm"), mixer_of(block, "mixer", spaces, norms(block))))

    tied = config.flag("tie_word_embeddings", True)
    return decoder(config, sizes, layer, names=NAMES, tied=tied, aliases=ALIASES)


def rank_of(config: Configuration, key: str) -> int:
    """How many elements the time step's latent has; by default one for 16 of the hidden state."""
    automatic = config.get(key, "auto") in ("auto", None)
    return -(-config.integer("hidden_size") // 16) if automatic else config.integer(key)


def mixer_of(block: Block, at: str, spaces: StateSpaces, norms: tuple[Norm, ...]) -> Mamba1:
    """The mixer of a layer. at: its name within the layer."""
    name, hidden, width = f"{block.name}.{at}", block.sizes.hidden, spaces.width
    called = [f"{at}.in_proj.x", f"{at}.in_proj.gate"]
    x, gate = block.split(f"{at}.in_proj", hidden, one_after_another([width] * 2), called, bias=spaces.bias)
    mixed = Convolution(
        f"{name}.conv1d",
        block.number,
        spaces.kernel,
        ((f"{name}.conv1d", width),),
        bias=spaces.convolution_bias,
        activation="silu",
    )
    return Mamba1(
        name,
        block.number,
        (x, gate),
        mixed,
        block.linear(f"{at}.x_proj", spaces.rank + 2 * spaces.state_size, width),
        block.linear(f"{at}.dt_proj", width, spaces.rank, bias=True),
        f"{name}.A_log",
        f"{name}.D",
        block.linear(f"{at}.out_proj", hidden, width, spaces.bias),
        spaces.state_size,
        norms,
    )
