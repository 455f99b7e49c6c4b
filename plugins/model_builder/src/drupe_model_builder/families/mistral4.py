"""Mistral Small 4: latent attention whose queries grow with the position, and experts chosen by a softmax."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.experts import after_first, expert_sizes, groups_of
from drupe_model_builder.configuration.latent import LatentSizes, sizes_with_latents
from drupe_model_builder.families.deepseek_v3 import latent_decoder
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.attention import PositionScale


def mistral4(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(1024, 256, 64, 64, 128), context_length=1048576)
    rope = config.rope(latent.rotated / latent.key)
    turned = rotary(rope, latent.key, sizes.stated_length, interleaved=config.flag("rope_interleave", True))
    grown = PositionScale(rope.number("llama_4_scaling_beta"), rope.integer("original_max_position_embeddings"))
    router = {
        **groups_of(config),
        "normalise": config.flag("norm_topk_prob", True),
        "factor": config.number("routed_scaling_factor", 1.0),
    }
    many, sparse = expert_sizes(config, (128, 4, 2048)), after_first(config)
    return latent_decoder(config, sizes, latent, turned, sparse, many, router, query_scale=grown)
