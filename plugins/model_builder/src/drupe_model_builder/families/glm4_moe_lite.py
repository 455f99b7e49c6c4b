"""GLM 4.7 Flash: latent attention, and experts after the first layer, chosen by sigmoids, with a shared one."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.experts import after_first, expert_sizes, sigmoid_router
from drupe_model_builder.configuration.latent import LatentSizes, latent_rotary, refuse_other_words, sizes_with_latents
from drupe_model_builder.families.deepseek_v3 import CHOICE_BIAS, latent_decoder


def glm4_moe_lite(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(768, 512, 192, 64, 256), context_length=202752, epsilon=1e-5)
    many, sparse = expert_sizes(config, (64, 4, 1536)), after_first(config, default=1)
    router = sigmoid_router(config, CHOICE_BIAS, factor=("routed_scaling_factor", 1.8), normalise=True)
    refuse_other_words(config, "topk_method", "noaux_tc")
    refuse_other_words(config, "scoring_func", "sigmoid")
    return latent_decoder(config, sizes, latent, latent_rotary(config, sizes), sparse, many, router)
