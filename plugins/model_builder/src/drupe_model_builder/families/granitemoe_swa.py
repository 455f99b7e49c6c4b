"""Granite MoE with sliding windows: experts of Granite MoE behind the attention of Granite with sliding windows."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.reading import sizes_of
from drupe_model_builder.families.granite_swa import windowed_attention
from drupe_model_builder.families.granitemoe import granite_of_experts, shared_width


def granitemoe_swa(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    return granite_of_experts(config, sizes, windowed_attention(config, sizes), shared_width(config))
