"""OLMoE and FlexOLMo: OLMo with experts, and norms over the whole of query and key.

OLMoE has norms before attention and experts, FlexOLMo on the results.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import rotary_of, sizes_of
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer, post


def olmoe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096, epsilon=1e-5)
    rotary, many = rotary_of(config, sizes), expert_sizes(config, (64, 8, 2048), width="intermediate_size")
    normalise = config.flag("norm_topk_prob", False)
    clip = None if config.get("clip_qkv") is None else config.number("clip_qkv", above=0)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(_attention(config, block, rotary, clip), experts_of(block, many, normalise=normalise))

    return decoder(config, sizes, layer)


def flex_olmo(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096)
    rotary = rotary_of(config, sizes, theta=500_000.0)
    many = expert_sizes(config, (7, 5, 11008), width="intermediate_size")
    normalise = config.flag("norm_topk_prob", False)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        return block.layer(
            post(_attention(config, block, rotary, None), block.norm("post_attention_layernorm")),
            post(experts_of(block, many, normalise=normalise), block.norm("post_feedforward_layernorm")),
        )

    return decoder(config, sizes, layer)


def _attention(config: Configuration, block: Block, rotary: Rotary, clip: float | None) -> Attention:
    """Attention whose query, key and value are limited after the norms, as OLMoE does it."""
    bias, sizes = config.flag("attention_bias", False), block.sizes
    projections = [
        block.linear("self_attn.q_proj", sizes.query, sizes.hidden, bias),
        block.linear("self_attn.k_proj", sizes.key, sizes.hidden, bias),
        block.linear("self_attn.v_proj", sizes.key, sizes.hidden, bias, clip=clip),
    ]
    return block.attention(
        rotary,
        projections=projections,
        output_bias=bias,
        norm_span="whole",
        query_norm=block.norm("self_attn.q_norm", sizes.query, clip=clip),
        key_norm=block.norm("self_attn.k_norm", sizes.key, clip=clip),
    )
