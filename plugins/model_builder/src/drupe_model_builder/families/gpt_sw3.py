"""GPT-SW3 (`gpt-sw3`): GPT-2 with a `model_type` of its own."""

from drupe_model_builder.families.gpt2 import gpt2 as gpt_sw3

__all__ = ["gpt_sw3"]
