"""EmbeddingGemma 2 (its text model): Gemma 4 in both directions, with layers' inputs from the hidden states alone.

The hidden states go through a product behind the final norm.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.later_layers import layer_input_of
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_by_type,
    sizes_of,
    sliding_window,
    with_rotary,
    without_effect,
)
from drupe_model_builder.families.gemma2 import sandwich
from drupe_model_builder.families.gemma3n_text import unscaled_attention
from drupe_model_builder.families.gemma4_text import FULL, SLIDING, sizes_of_layer
from drupe_model_builder.parts.layer_inputs import LayerInputs
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer, Step, post

USUAL_ROTARY = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "default", "rope_theta": 1_000_000.0},
}
PROJECTION, LAYER_PROJECTION = "model.embedding_projection", "model.ple.per_layer_model_projection"


def embedding_gemma2_text(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=262_144, kv_heads=2, head_dim=256)
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")
    without_effect(config, "tie_word_embeddings")  # there is no head
    pattern = config.integer("sliding_window_pattern", 6)
    kinds = (*layer_types(config, every(pattern, sizes.layers))[:-1], FULL)  # the last layer is full, whatever is said
    groups = config.integer("num_global_key_value_heads", 1)
    own = [sizes_of_layer(config, sizes, number, kind, groups) for number, kind in enumerate(kinds)]
    told = with_rotary(config, USUAL_ROTARY)
    reach, size = sliding_window(config, 512), config.integer("hidden_size_per_layer_input", 512)

    def layer(block: Block) -> Layer:
        kind, block = kinds[block.number], replace(block, sizes=own[block.number])
        rotary = rotary_by_type(told, block.sizes, sliding_theta=10_000.0, full_theta=1_000_000.0)[kind]
        window = reach + 1 if reach is not None and kind == SLIDING else None  # so many tokens on each side
        attention = unscaled_attention(config, block, rotary, window, both_ways=True)
        made = sandwich(block, attention, gelu)
        return replace(made, steps=(*made.steps, _layer_input(block, size, gelu)), factor=f"{block.name}.layer_scalar")

    wide = Rows(f"{PROJECTION}.weight", (config.integer("embedding_dim", 768), sizes.hidden))
    made = decoder(
        config,
        sizes,
        layer,
        embedding={"factor": sizes.hidden**0.5},
        layer_inputs=_layer_inputs(sizes, size),
        tied=True,
    )
    return replace(made, head=None, projection=Linear(PROJECTION, wide))


def _layer_inputs(sizes: Sizes, size: int) -> LayerInputs:
    rows = Rows(f"{LAYER_PROJECTION}.weight", (sizes.layers * size, sizes.hidden))
    return LayerInputs(
        None,
        sizes.vocab_size,
        sizes.layers,
        size,
        1.0,
        Linear(LAYER_PROJECTION, rows, factor=sizes.hidden**-0.5),
        Norm("model.ple.per_layer_projection_norm", (size,), sizes.epsilon),
    )


def _layer_input(block: Block, size: int, gelu: str) -> Step:
    part = layer_input_of(block, size, gelu, "ple_block", "ple_block.")
    return post(part, block.norm("ple_block.post_per_layer_input_norm"))
