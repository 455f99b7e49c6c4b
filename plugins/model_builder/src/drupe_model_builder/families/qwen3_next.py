"""Qwen3 Next: Qwen 3.5 with experts, and with the matrices of linear attention fused, key head by key head."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import by_step, expert_sizes
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.qwen3_5_text import (
    IGNORED,
    LINEAR,
    NORMS,
    PARTIAL,
    delta_sizes,
    experts_with_a_shared_one,
    gated_attention,
    gated_delta,
    layer_kinds,
)
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Layer

FUSED = tuple(f"linear_attn.in_proj_{each}" for each in ("q", "k", "v", "z"))
GATES = tuple(f"linear_attn.in_proj_{each}" for each in ("b", "a"))


def qwen3_next(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32_768, kv_heads=2, head_dim=256)
    rotary, silu = rotary_of(config, sizes, partial=PARTIAL), activation(config)
    kinds, sparse, many = layer_kinds(config, sizes), by_step(config), expert_sizes(config, (512, 10, 512))
    normalise = config.flag("norm_topk_prob", True)

    def layer(block: Block) -> Layer:
        linear = kinds[block.number] == LINEAR
        mixer = _linear_attention(config, block) if linear else gated_attention(config, block, rotary)
        if sparse[block.number]:
            return block.pre_norm(mixer, experts_with_a_shared_one(config, block, many, normalise=normalise))
        return block.pre_norm(mixer, block.gated_mlp(silu))

    return decoder(config, sizes, layer, norms=NORMS, ignored=IGNORED)


def _linear_attention(config: Configuration, block: Block) -> GatedDelta:
    found, hidden = delta_sizes(config), block.sizes.hidden
    shared = found["value_heads"] // found["key_heads"]
    values = shared * found["value_size"]
    rows = by_head([found["key_size"], found["key_size"], values, values], found["key_heads"])
    query, key, value, gate = block.split("linear_attn.in_proj_qkvz", hidden, rows, FUSED)
    rate, decay = block.split("linear_attn.in_proj_ba", hidden, by_head([shared] * 2, found["key_heads"]), GATES)
    return gated_delta(config, block, (query, key, value), gate, rate, decay)
