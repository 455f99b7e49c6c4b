"""Qwen2 and Qwen2.5: Llama with biases on query, key and value, and optional sliding windows on the upper layers."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.architectures.common import decoder, layer_windows, sliding_window
from drupe_model_builder.recipe import DecoderRecipe


def qwen2(config: Configuration) -> DecoderRecipe:
    return decoder(config, context_length=32768, kv_heads=32, qkv_bias=True, windows=windows(config))


def windows(config: Configuration) -> tuple[int | None, ...]:
    """The sliding windows of Qwen2 and Qwen3. `sliding_window` has no effect without `use_sliding_window`."""
    window = sliding_window(config, 4096) if config.flag("use_sliding_window", False) else None
    return layer_windows(config, window, first=_count(config, "max_window_layers", 28))


def _count(config: Configuration, key: str, default: int) -> int:
    return 0 if config.get(key) == 0 else config.integer(key, default)
