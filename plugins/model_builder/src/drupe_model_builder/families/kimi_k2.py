"""Kimi K2: DeepSeek V3 with a model_type of its own."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.deepseek_v3 import deepseek_v3


def kimi_k2(config: Configuration) -> Decoder:
    return deepseek_v3(config)
