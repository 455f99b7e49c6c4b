"""LFM2 with experts."""

from drupe_model_builder.families.lfm2 import lfm2_moe

__all__ = ["lfm2_moe"]
