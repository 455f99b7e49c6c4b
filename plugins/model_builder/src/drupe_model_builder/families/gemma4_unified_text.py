"""Gemma 4 unified (its text model): Gemma 4 without inputs for each layer, with longer windows."""

from drupe_model_builder.families.gemma4_text import gemma4_unified_text

__all__ = ["gemma4_unified_text"]
