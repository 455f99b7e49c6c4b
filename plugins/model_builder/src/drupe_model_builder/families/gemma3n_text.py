"""Gemma 3n: four streams of hidden states (AltUp), Laurel beside attention, and inputs of their own for each layer.

The last layers read the keys and values of earlier ones, and the first ones have a sparse gate in their MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from drupe.api import counted, replace
from drupe_checkpoints import Configuration
from drupe_checkpoints.wording import shown
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
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
    layer_count,
    layer_types,
    rotary_by_type,
    sizes_of,
    sliding_window,
    without_effect,
)
from drupe_model_builder.families.gemma2 import softcap
from drupe_model_builder.parts.altup import AltUp, Streams
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.laurel import Laurel
from drupe_model_builder.parts.layer_inputs import LayerInput
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.sparse_gate import SparseGate
from drupe_model_builder.parts.step import Branch, Layer, Mixer, Step, both

MOST_STREAMS = 64
USUAL_GATES = 10
OF_TRAINING = ("altup_coef_clip", "altup_lr_multiplier")


def gemma3n_text(config: Configuration) -> Decoder:
    widths = _widths(config)
    sizes = sizes_of(
        config.with_values({"intermediate_size": max(widths)}), context_length=32_768, kv_heads=2, head_dim=256
    )
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")
    kinds = layer_types(config, every(5, sizes.layers))
    sources = sources_of(config, kinds, default=15)
    attention = _attention_of(config, sizes, kinds, sources)
    gates, rank = _gates(config, sizes.layers), config.integer("laurel_rank", 64)
    size = config.integer("hidden_size_per_layer_input", 256)
    without_effect(config, *OF_TRAINING)

    def layer(block: Block) -> Layer:
        block = replace(block, sizes=replace(sizes, intermediate=widths[block.number]))
        mlp = replace(block.gated_mlp(gelu), sparse_gate=gates[block.number])
        made = block.layer(
            _beside_laurel(block, attention(block), rank),
            both(block.norm("pre_feedforward_layernorm"), mlp, block.norm("post_feedforward_layernorm")),
        )
        return replace(made, altup=_altup(config, block, layer_input_of(block, size, gelu)))

    inputs = layer_inputs_of(config, sizes, size)
    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": sizes.hidden**0.5},
        head={"softcap": softcap(config, "final_logit_softcapping", 30.0)},
        tied=config.flag("tie_word_embeddings", True),
        layer_inputs=replace(inputs, first_beyond=inputs.vocab_size < sizes.vocab_size),
        streams=_streams(config, sizes.hidden),
        ignored=(*unread_of(sources), *_unread_scales(config)),
    )


def _attention_of(
    config: Configuration, sizes: Sizes, kinds: Sequence[str], sources: Mapping[int, int]
) -> Callable[[Block], Mixer]:
    """What gives a layer its attention: with a window by the layer's kind, and with the keys and values of its source.

    sources: see `sources_of`.
    """
    rotaries = rotary_by_type(
        config, sizes, sliding_theta=10_000.0, full_theta=1_000_000.0, local_key="rope_local_base_freq"
    )
    window = sliding_window(config, 512)
    without_effect(config, "query_pre_attn_scalar")  # queries are not scaled, whatever the files say

    def attention(block: Block) -> Mixer:
        kind, source = kinds[block.number], sources.get(block.number)
        made = unscaled_attention(config, block, rotaries[kind], window if kind == "sliding_attention" else None)
        return made if source is None else borrowed(made, source, sizes)

    return attention


def unscaled_attention(
    config: Configuration, block: Block, rotary: Rotary, window: int | None, *, both_ways: bool = False
) -> Attention:
    """Attention of Gemma 3n and later ones: queries are not scaled, and the value of each head has a norm as well."""
    bias = config.flag("attention_bias", False)
    return block.attention(
        rotary,
        bias=bias,
        output_bias=bias,
        head_norm=True,
        scale=1.0,
        window=window,
        both_ways=both_ways,
        value_norm=Norm(f"{block.name}.self_attn.v_norm", (block.sizes.head_dim,), block.sizes.epsilon, weight=False),
    )


def _beside_laurel(block: Block, attention: Mixer, rank: int) -> Step:
    """Attention and Laurel read the same normed state, and what they add is scaled."""
    branches = Branch(attention, after=block.norm("post_attention_layernorm")), Branch(_laurel(block, rank))
    return Step(branches, before=block.norm("input_layernorm"), factor=2**-0.5)


def _streams(config: Configuration, hidden: int) -> Streams:
    """All streams but the first have matrices of their own before and behind the layers."""

    def matrices(name: str) -> tuple[Linear, ...]:
        full = [f"model.{name}.{number}" for number in range(_count(config) - 1)]
        return tuple(Linear(each, Rows(f"{each}.weight", (hidden, hidden))) for each in full)

    return Streams(matrices("altup_projections"), matrices("altup_unembed_projections"))


def _altup(config: Configuration, block: Block, given: LayerInput) -> AltUp:
    count, hidden, name = _count(config), block.sizes.hidden, f"{block.name}.altup"
    return AltUp(
        name,
        count,
        _active(config),
        block.norm("altup.router_norm"),
        block.linear("altup.modality_router", count, hidden, factor=1 / hidden),
        block.linear("altup.prediction_coefs", count * count, count),
        block.linear("altup.correction_coefs", count, count),
        f"{name}.correct_output_scale" if _is_scaled(config) else None,
        given,
        block.norm("post_per_layer_input_norm"),
    )


def _laurel(block: Block, rank: int) -> Laurel:
    hidden = block.sizes.hidden
    return Laurel(
        f"{block.name}.laurel",
        block.linear("laurel.linear_left", rank, hidden),
        block.linear("laurel.linear_right", hidden, rank),
        block.norm("laurel.post_laurel_norm"),
    )


def _count(config: Configuration) -> int:
    """How many streams there are."""
    count = config.integer("altup_num_inputs", 4, most=MOST_STREAMS)
    if count == 1:
        raise config.mistake("altup_num_inputs = 1 leaves no stream to predict: it must be 2 or more")
    return count


def _active(config: Configuration) -> int:
    """The number of the stream that the layers compute."""
    number, count = config.get("altup_active_idx", 0), _count(config)
    if number not in range(count):
        raise config.mistake(f"altup_active_idx = {shown(number)} is not one of {count} streams, counted from 0")
    return int(number)


def _is_scaled(config: Configuration) -> bool:
    """Whether the corrected stream has a factor before it meets the layer's own input."""
    return config.flag("altup_correct_scale", True)


def _unread_scales(config: Configuration) -> tuple[str, ...]:
    """The tensors of factors that checkpoints hold where the corrected stream has none."""
    return () if _is_scaled(config) else (r"model\.layers\.\d+\.altup\.correct_.*scale",)


def _widths(config: Configuration) -> list[int]:
    """The width of each layer's MLP: one number for all, or a list."""
    layers, width = layer_count(config), config.get("intermediate_size")
    if not isinstance(width, list):
        return [config.integer("intermediate_size")] * layers
    if len(width) != layers:
        raise config.mistake(f"intermediate_size wants, for each of {counted(layers, 'layer')}, a width")
    return [config.with_values({"intermediate_size": each}).integer("intermediate_size") for each in width]


def _gates(config: Configuration, layers: int) -> list[SparseGate | None]:
    """The sparse gates of the layers, by `activation_sparsity_pattern`: each layer's share of values that are left out.

    Without the key, the first 10 of more than 10 layers have one.
    """
    key = "activation_sparsity_pattern"
    usual = [0.95 if layers > USUAL_GATES and number < USUAL_GATES else 0.0 for number in range(layers)]
    shares = usual if config.get(key) is None else config.numbers(key)
    if len(shares) != layers or any(not 0 <= share < 1 for share in shares):
        raise config.mistake(f"{key} wants, for each of {counted(layers, 'layer')}, a share from 0 to less than 1")
    return [SparseGate(share) if share else None for share in shares]
