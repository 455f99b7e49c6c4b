"""dots.llm1: Qwen3 with experts after the first layers, chosen by sigmoids, and a shared one."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
    sigmoid_router,
)
from drupe_model_builder.configuration.reading import (
    activation,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.parts.step import Layer


def dots1(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, kv_heads=32)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    window, last = sliding_window(config, 4096), config.integer("max_window_layers", 62)
    usual = ["sliding_attention" if window and at >= last else "full_attention" for at in range(sizes.layers)]
    windows = windows_of(layer_types(config, usual), window)
    many, sparse = expert_sizes(config, None), after_first(config)
    router = sigmoid_router(config, "gate.e_score_correction_bias", normalise=False)
    shared_width = many.width * config.integer("n_shared_experts")
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, window=windows[block.number])
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_experts", shared_width, silu)
        return block.pre_norm(attention, experts_of(block, many, shared=shared, **router))

    return decoder(config, sizes, layer)
