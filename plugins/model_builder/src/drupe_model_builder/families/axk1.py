"""A.X K1: DeepSeek V3 with a norm on the experts' result."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.experts import after_first, expert_sizes, sigmoid_router
from drupe_model_builder.configuration.latent import LatentSizes, latent_rotary, refuse_other_words, sizes_with_latents
from drupe_model_builder.families.deepseek_v3 import CHOICE_BIAS, latent_decoder

NORM = "post_mlp_layernorm"
UNUSED = r"model\.layers\.\d+\.post_mlp_layernorm\.weight"
"""The published model has the norm in its dense layer, too, which does not use it."""
ALIASES = ((r"\.mlp\.post_mlp_layernorm\.", ".post_mlp_layernorm."),)
"""transformers' own name."""
CHOICE_BIASES = r".*\.mlp\.gate\.e_score_correction_bias"
"""The published model has none."""


def axk1(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(1536, 512, 128, 64, 128), context_length=32768)
    many, sparse = expert_sizes(config, (192, 8, 2048)), after_first(config, default=1)
    router = sigmoid_router(config, CHOICE_BIAS, factor=("routed_scaling_factor", 2.5), groups=(8, 4), normalise=True)
    refuse_other_words(config, "topk_method", "noaux_tc")
    refuse_other_words(config, "scoring_func", "sigmoid")
    rotary = latent_rotary(config, sizes)
    return latent_decoder(
        config, sizes, latent, rotary, sparse, many, router,
        normed=NORM, ignored=(UNUSED,), aliases=ALIASES, zeros=(CHOICE_BIASES,),
    )  # fmt: skip
