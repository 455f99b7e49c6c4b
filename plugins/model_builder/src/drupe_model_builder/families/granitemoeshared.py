"""Granite MoE with an MLP beside the experts that every token runs."""

from drupe_model_builder.families.granitemoe import granitemoeshared

__all__ = ["granitemoeshared"]
