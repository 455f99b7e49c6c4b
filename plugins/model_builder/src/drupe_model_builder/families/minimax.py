"""MiniMax Text 01: lightning attention and attention in turn, experts; what a norm gives is the residual as well."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import MIXTRAL, expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import (
    activation,
    kinds_of_layers,
    not_built,
    rotary_of,
    sizes_of,
    sliding_window,
    without_effect,
)
from drupe_model_builder.families.qwen3_5_text import ATTENTION, LINEAR
from drupe_model_builder.parts.lightning_attention import LightningAttention
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Branch, Layer, Step

FIRST = "model.layers.{}.input_layernorm"
LAST = "model.norm"
IN_THE_GRAPH = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
COMPUTED = r"model\.layers\.\d+\.self_attn\.(slope_rate|(query|key|diagonal)_decay)"
"""Tensors with numbers that follow from config.json."""
PARTS = ("full_attn", "linear_attn", "mlp")
"""The beginnings of the keys with the factors on a part's residual (`_alpha_factor`) and result (`_beta_factor`)."""


def minimax(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, epsilon=1e-5)
    rotary, window = rotary_of(config, sizes, theta=1_000_000.0), sliding_window(config, 0)
    silu, many = activation(config), expert_sizes(config, (8, 2, 14336), width="intermediate_size")
    usual = [LINEAR if layer % 2 else ATTENTION for layer in range(sizes.layers)]
    kinds = kinds_of_layers(config, (ATTENTION, LINEAR), usual)
    residual = {part: config.number(f"{part}_alpha_factor", 1.0, above=0) for part in PARTS}
    branch = {part: config.number(f"{part}_beta_factor", 1.0) / residual[part] for part in PARTS}
    refuse_other_activations(config)
    without_effect(config, "block_size")
    if config.integer("rotary_dim", sizes.head_dim) != sizes.head_dim:
        raise not_built(
            config,
            "rotary_dim",
            config["rotary_dim"],
            "rotates a part of each head, and transformers' class rotates all of it",
            "remove the key to get what transformers computes",
        )

    def norm(name: str, part: str) -> Norm:
        """A norm behind a part. The part leaves the factor on the residual out, which makes all that the norm reads
        smaller; only its epsilon tells the difference.
        """
        return Norm(name, (sizes.hidden,), sizes.epsilon / residual[part] ** 2)

    def layer(block: Block) -> Layer:
        linear = kinds[block.number] == LINEAR
        mixer = _lightning(block, silu) if linear else block.attention(rotary, window=window)
        part, last = "linear_attn" if linear else "full_attn", block.number == sizes.layers - 1
        between = norm(f"{block.name}.post_attention_layernorm", part)
        # The norm that closes the last layer is the one before the head.
        closing = None if last else norm(FIRST.format(block.number + 1), "mlp")
        return block.layer(
            Step((Branch(mixer, factor=branch[part]),), closing=between),
            Step((Branch(experts_of(block, many, MIXTRAL), factor=branch["mlp"]),), closing=closing),
        )

    first = Norm(FIRST.format(0), (sizes.hidden,), sizes.epsilon)
    made = decoder(config, sizes, layer, embedding={"norm": first}, ignored=(COMPUTED,))
    return replace(made, final_norm=norm(LAST, "mlp"))


def _lightning(block: Block, activation: str) -> LightningAttention:
    """What a head keeps at a token: less in the first heads, and more in later layers."""
    sizes, at = block.sizes, block.names.attention
    depth = 1 - block.number / (sizes.layers - 1 + 1e-5) + 1e-5
    rows = by_head([sizes.head_dim] * 3, sizes.heads)
    query, key, value = block.split(f"{at}.qkv_proj", sizes.hidden, rows, IN_THE_GRAPH)
    return LightningAttention(
        f"{block.name}.{at}",
        block.number,
        query,
        key,
        value,
        activation,
        tuple(-depth * 2.0 ** (-8 * (head + 1) / sizes.heads) for head in range(sizes.heads)),
        block.norm(f"{at}.norm", sizes.query, epsilon=1e-6),
        block.linear(f"{at}.output_gate", sizes.query, sizes.hidden),
        block.linear(f"{at}.out_proj", sizes.hidden, sizes.query),
    )
