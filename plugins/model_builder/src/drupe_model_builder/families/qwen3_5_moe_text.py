"""Qwen 3.5 with experts (its text model)."""

from drupe_model_builder.families.qwen3_5_text import qwen3_5_moe_text

__all__ = ["qwen3_5_moe_text"]
