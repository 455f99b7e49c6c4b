"""DeepSeek V2: latent attention, and experts after the first layers, chosen by a softmax, of all or the best groups."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.experts import after_first, expert_sizes, groups_of
from drupe_model_builder.configuration.latent import LatentSizes, refuse_other_words, sizes_with_latents
from drupe_model_builder.configuration.reading import not_built, rotary_of
from drupe_model_builder.families.deepseek_v3 import latent_decoder

GREEDY, IN_GROUPS = "greedy", "group_limited_greedy"


def deepseek_v2(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(1536, 512, 128, 64, 128), context_length=2048)
    many, sparse = expert_sizes(config, (64, 6, 1407)), after_first(config)
    rotary = rotary_of(config, sizes, interleaved=True)
    return latent_decoder(config, sizes, latent, rotary, sparse, many, _router(config), shared_experts=2)


def _router(config: Configuration) -> dict[str, Any]:
    """The fields of the router. A group is as good as its best expert."""
    method = config.text("topk_method", GREEDY)
    if method not in (GREEDY, IN_GROUPS):
        raise not_built(
            config,
            "topk_method",
            method,
            f"asks for another choice of experts than {GREEDY} and {IN_GROUPS}",
            "correct topk_method if it is misspelt; with noaux_tc the model may be a deepseek_v3",
        )
    refuse_other_words(config, "scoring_func", "softmax")
    if config.flag("norm_topk_prob", False):
        raise not_built(
            config,
            "norm_topk_prob",
            True,
            "divides the weights of experts by their sum, which transformers does not do",
            "set it to false, as in the published models, to get what transformers computes",
        )
    groups = groups_of(config, score=1)  # without an effect on greedy choices
    return {
        **(groups if method == IN_GROUPS else {}),
        "normalise": False,
        "factor": config.number("routed_scaling_factor", 1.0),
    }
