"""Zamba 2: Mamba-2, and on some layers blocks of attention and MLP whose matrices these layers share.

A shared block reads the hidden state and the embedding. Small matrices (adapters) of each use are added to its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from drupe.api import Record, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    kinds_of_layers,
    rotary_of,
    shared_by,
    sizes_of,
    without_effect,
)
from drupe_model_builder.families.mamba2 import MambaSizes, mixer_of
from drupe_model_builder.parts.linear import Adapter, Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import Rows, one_after_another
from drupe_model_builder.parts.shared_block import SharedBlock
from drupe_model_builder.parts.step import Layer, Step, pre

MAMBA, HYBRID = "linear_attention", "hybrid"
WORDS = {"mamba": MAMBA}
"""An older word for a kind of layer."""
USUAL = [MAMBA, *([MAMBA] * 5 + [HYBRID]) * 7, *[MAMBA] * 4, HYBRID, *[MAMBA] * 3, HYBRID, *[MAMBA] * 2]
NAMES = Names(final_norm="model.final_layernorm")
SHARED, ATTENTION, MLP = "shared_transformer", "shared_transformer.self_attn", "shared_transformer.feed_forward"
LONG_CONTEXT = 16_384
MIXER_EPSILON = 1e-5
FOLLOWING = (
    "attention_head_dim", "attention_hidden_size", "ffn_hidden_size", "hybrid_layer_ids", "kv_channels", "layer_types",
    "mamba_headdim", "num_query_groups", "use_conv_bias", "use_mem_eff_path",
)  # fmt: skip
"""Keys that repeat what others say, as transformers writes them, and some that its class does not read."""


class Use(Record):
    """One use of a shared block. block: the layer that uses it. source: the one that holds its tensors. number: which
    use it is, of all layers with shared blocks.
    """

    block: Block
    source: Block
    number: int

    def product(
        self,
        matrix: Linear,
        adapters: str | None = None,
        shapes: Sequence[tuple[int, int]] = (),
        rows: tuple[range, ...] = (),
    ) -> Linear:
        """A product with a matrix of the source. adapters: the list in the source that holds one for each use.

        shapes: of the adapter's two matrices. rows: those of the second one that belong to the matrix.
        """
        name = self._here(matrix.name)
        adapter = None
        if adapters is not None:
            small, large = (
                Rows(f"{self.source.name}.{adapters}.{self.number}.{place}.weight", shape)
                for place, shape in enumerate(shapes)
            )
            adapter = Adapter(Linear(f"{name}.inward", small), Linear(f"{name}.outward", large.of(rows)))
        return replace(matrix, name=name, matrix=matrix.name, adapter=adapter)

    def norm(self, name: str, size: int) -> Norm:
        """A norm of the source."""
        there = self.source.norm(f"{SHARED}.{name}", size)
        return replace(there, name=self._here(there.name), tensor=there.weight_name)

    def _here(self, name: str) -> str:
        """The name in this layer of something that the source has."""
        return self.block.name + name.removeprefix(self.source.name)


def zamba2(config: Configuration) -> Decoder:
    sizes, gelu, mamba = _sizes(config), activation(config, default="gelu"), _mamba(config)
    rotary = rotary_of(config, sizes) if config.flag("use_mem_rope", False) else None
    kinds = _kinds(config)
    sources = _sources(config, kinds)
    without_effect(config, *FOLLOWING)

    def layer(block: Block) -> Layer:
        if kinds[block.number] == MAMBA:
            return block.layer(_mixing(config, block, mamba, ""))
        use = Use(block, replace(block, number=sources[block.number]), list(sources).index(block.number))
        aside = _shared_block(config, use, rotary, gelu)
        return block.layer(replace(_mixing(config, block, mamba, "mamba_decoder."), aside=aside))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        tied=config.flag("tie_word_embeddings", True),
        ignored=_copies(sources),
    )


def _mixing(config: Configuration, block: Block, sizes: MambaSizes, at: str) -> Step:
    """Mamba-2 behind a norm. at: the prefix of both within the layer."""
    mixer = mixer_of(block, sizes, f"{at}mamba")
    assert mixer.norm is not None
    return pre(block.norm(f"{at}input_layernorm"), replace(mixer, norm=replace(mixer.norm, epsilon=MIXER_EPSILON)))


def _shared_block(config: Configuration, use: Use, rotary: Rotary | None, gelu: str) -> SharedBlock:
    """The shared block of a layer."""
    sizes, block, wide = use.block.sizes, use.block, 2 * use.block.sizes.hidden
    rank, bias = config.integer("adapter_rank", 128), config.flag("add_bias_linear", False)
    adapted = config.flag("use_shared_attention_adapter", False)
    own = replace(block, names=replace(block.names, attention=ATTENTION, mlp=MLP))

    def projection(letter: str, rows: int) -> Linear:
        matrix = use.source.linear(f"{ATTENTION}.{letter}_proj", rows, wide)
        shapes = (rank, wide), (rows, rank)
        return use.product(matrix, f"{ATTENTION}.linear_{letter}_adapter_list" if adapted else None, shapes)

    def half(matrix: Linear, rows: tuple[range, ...]) -> Linear:
        shapes = (rank, sizes.hidden), (2 * sizes.intermediate, rank)
        return use.product(matrix, f"{MLP}.gate_up_proj_adapter_list", shapes, rows)

    output = use.source.linear(f"{ATTENTION}.o_proj", sizes.hidden, sizes.query)
    attention = own.attention(
        rotary,
        projections=[projection("q", sizes.query), projection("k", sizes.key), projection("v", sizes.key)],
        output=use.product(output),
        scale=(sizes.head_dim / 2) ** -0.5,
    )
    halves, called = one_after_another([sizes.intermediate] * 2), [f"{MLP}.gate_proj", f"{MLP}.up_proj"]
    fused = use.source.split(f"{MLP}.gate_up_proj", sizes.hidden, halves, called, bias=bias)
    gate, up = (half(matrix, rows) for matrix, rows in zip(fused, halves, strict=True))
    down = use.product(use.source.linear(f"{MLP}.down_proj", sizes.hidden, sizes.intermediate, bias))
    return SharedBlock(
        f"{block.name}.{SHARED}",
        use.norm("input_layernorm", wide),
        attention,
        use.norm("pre_ff_layernorm", sizes.hidden),
        replace(own.gated_mlp(gelu), gate=gate, up=up, down=down),
        block.linear("linear", sizes.hidden, sizes.hidden),
    )


def _sources(config: Configuration, kinds: Sequence[str]) -> dict[int, int]:
    """For each layer with a shared block: the layer that holds the block's tensors, one of the first ones in turn."""
    hybrid = [number for number, kind in enumerate(kinds) if kind == HYBRID]
    count = config.integer("num_mem_blocks", 1)
    return {number: hybrid[use % count] for use, number in enumerate(hybrid)}


def _copies(sources: dict[int, int]) -> tuple[str, ...]:
    """Tensors of shared blocks that a checkpoint holds once more for a later layer."""
    later = "|".join(str(number) for number, source in sources.items() if number != source)
    return (rf"model\.layers\.({later})\.shared_transformer\..*",) if later else ()


def _kinds(config: Configuration) -> tuple[str, ...]:
    """Whether each layer has a shared block."""
    key = "layers_block_type" if config.get("layers_block_type") is not None else "layer_types"
    told = config.texts(key)
    renamed = config.with_values({key: [WORDS.get(each, each) for each in told]}) if told else config
    return kinds_of_layers(renamed, (MAMBA, HYBRID), USUAL, key)


def _sizes(config: Configuration) -> Sizes:
    """The sizes. Heads share twice the hidden size, as shared blocks read the embedding, too."""
    hidden = config.integer("hidden_size")
    told = config.with_values({"intermediate_size": config.integer("intermediate_size", 4 * hidden), "head_dim": None})
    if config.flag("use_long_context", False):
        told = told.with_values({"max_position_embeddings": LONG_CONTEXT})
    sizes = sizes_of(told, context_length=4096, epsilon=1e-5)
    if 2 * hidden % sizes.heads:
        raise config.mistake(f"num_attention_heads = {sizes.heads} does not divide twice the hidden size {hidden}")
    if config.flag("use_shared_attention_adapter", False) and sizes.kv_heads != sizes.heads:
        raise config.mistake(
            f"use_shared_attention_adapter wants as many num_key_value_heads as num_attention_heads = {sizes.heads}"
        )
    return replace(sizes, head_dim=2 * hidden // sizes.heads)


def _mamba(config: Configuration) -> MambaSizes:
    """Of the limits of the time step, transformers takes `time_step_min` only."""
    heads, width = config.integer("n_mamba_heads", 8), config.integer("mamba_expand", 2) * config.integer("hidden_size")
    if width % heads:
        raise config.mistake(f"n_mamba_heads = {heads} does not divide mamba_expand * hidden_size = {width}")
    return MambaSizes(
        heads=heads,
        head_dim=width // heads,
        groups=shared_by(config, heads, config.integer("mamba_ngroups", 1), "mamba_ngroups", "n_mamba_heads"),
        state_size=config.integer("mamba_d_state", 64),
        kernel=config.integer("mamba_d_conv", 4),
        bias=config.flag("add_bias_linear", False),
        convolution_bias=True,
        limits=(config.number("time_step_min", 0.001), math.inf),
    )
