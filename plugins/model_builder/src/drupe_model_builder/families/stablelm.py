"""StableLM: LayerNorms, a quarter of each head rotated, and attention and MLP one after the other or side by side."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.step import Branch, Layer, side_by_side

NORMS = {"kind": "layer", "bias": True}


def stablelm(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096, kv_heads=32, epsilon=1e-5, epsilon_key="layer_norm_eps")
    rotary, silu, bias = rotary_of(config, sizes, partial=0.25), activation(config), config.flag("use_qkv_bias", False)
    parallel, normed = config.flag("use_parallel_residual", False), config.flag("qk_layernorm", False)

    def head_norm(block: Block, name: str, heads: int) -> Norm:
        shape = (heads, sizes.head_dim)
        return Norm(f"{block.name}.self_attn.{name}", shape, sizes.epsilon, kind="layer", pieces=True)

    def layer(block: Block) -> Layer:
        norms: dict[str, Any] = {}
        if normed:
            norms = {
                "query_norm": head_norm(block, "q_layernorm", sizes.heads),
                "key_norm": head_norm(block, "k_layernorm", sizes.kv_heads),
            }
        attention, mlp = block.attention(rotary, bias=bias, **norms), block.gated_mlp(silu)
        if parallel:
            return block.layer(side_by_side(block.norm("input_layernorm"), Branch(attention), Branch(mlp)))
        return block.pre_norm(attention, mlp)

    return decoder(config, sizes, layer, norms=NORMS)
