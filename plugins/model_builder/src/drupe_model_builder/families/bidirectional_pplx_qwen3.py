"""Qwen3 whose tokens read later ones, too (`bidirectional_pplx_qwen3`): Perplexity's pplx-embed."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.directions import both_ways
from drupe_model_builder.families.qwen3 import qwen3


def bidirectional_pplx_qwen3(config: Configuration) -> Decoder:
    decoder = qwen3(config)
    return both_ways(decoder) if config.flag("use_bidirectional_attention", True) else decoder
