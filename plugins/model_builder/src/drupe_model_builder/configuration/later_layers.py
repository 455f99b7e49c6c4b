"""Later layers that read keys and values of earlier ones, and inputs of each layer's own: Gemma 3n and Gemma 4."""

from __future__ import annotations

from collections.abc import Mapping

from drupe_checkpoints import Configuration
from drupe_model_builder.configuration.block import Block, Sizes
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.layer_inputs import LayerInput, LayerInputs
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.state import KeyValueState


def sources_of(config: Configuration, kinds: tuple[str, ...], default: int = 0) -> dict[int, int]:
    """For each of the last layers that read keys and values of another: the last layer of its kind before them all.

    default: how many layers do so where config.json does not say it.
    """
    count = config.get("num_kv_shared_layers", default) or 0
    count = config.integer("num_kv_shared_layers", default, most=len(kinds) - 1) if count else 0
    first = len(kinds) - count
    last = {kind: number for number, kind in enumerate(kinds[:first])}
    if missing := [kind for kind in kinds[first:] if kind not in last]:
        raise config.mistake(f"num_kv_shared_layers = {count} leaves no layer of the kind {missing[0]} to read from")
    return {number: last[kinds[number]] for number in range(first, len(kinds))}


def unread_of(sources: Mapping[int, int]) -> tuple[str, ...]:
    """The tensors of keys and values that checkpoints hold for layers that read those of another."""
    numbers = "|".join(map(str, sources))
    return (rf"model\.layers\.({numbers})\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\..*",) if sources else ()


def borrowed(attention: Attention, source: int, sizes: Sizes) -> BorrowedAttention:
    """Attention's query over the keys and values of the layer `source`, which has these sizes."""
    assert attention.rotary is not None and attention.query_norm is not None
    return BorrowedAttention(
        attention.name,
        KeyValueState(source, sizes.kv_heads, sizes.head_dim),
        attention.query,
        attention.output,
        attention.heads,
        attention.scale,
        attention.rotary,
        attention.query_norm,
        attention.window,
        attention.both_ways,
    )


def layer_inputs_of(config: Configuration, sizes: Sizes, size: int) -> LayerInputs:
    """The inputs of all layers. size: of each layer's."""
    wide = sizes.layers * size
    projection = "model.per_layer_model_projection"
    return LayerInputs(
        "model.embed_tokens_per_layer.weight",
        config.integer("vocab_size_per_layer_input", 262_144),
        sizes.layers,
        size,
        size**0.5,
        Linear(projection, Rows(f"{projection}.weight", (wide, sizes.hidden)), factor=sizes.hidden**-0.5),
        Norm("model.per_layer_projection_norm", (size,), sizes.epsilon),
    )


def layer_input_of(block: Block, size: int, gelu: str, name: str = "per_layer_input", prefix: str = "") -> LayerInput:
    """The part that reads the layer's own input. name: of the part. prefix: of its tensors' names in the block."""
    hidden = block.sizes.hidden
    return LayerInput(
        f"{block.name}.{name}",
        block.number,
        block.linear(f"{prefix}per_layer_input_gate", size, hidden),
        block.linear(f"{prefix}per_layer_projection", hidden, size),
        gelu,
    )
