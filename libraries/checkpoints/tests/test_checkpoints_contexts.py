"""Contexts: what config.json states, and what scaled rotary positions make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.api import ModelError
from drupe_checkpoints import Configuration, context_of

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def config(**entries: Any) -> Configuration:
    return Configuration(Path("config.json"), entries)


@pytest.mark.parametrize(
    ("stated", "rope", "context"),
    [
        (4096, None, 4096),
        (4096.0, None, 4096),
        (131072, LLAMA3, 131072),
        (32768, YARN, 131072),  # as Qwen2.5's model cards have it added
        (40960, YARN, 131072),  # as Qwen3's have it
        (131072, {**YARN, "factor": None}, 131072),
        (4096, {"rope_type": "yarn", "factor": 2.5}, 10240),
        (131072, {**YARN, "factor": 2.0}, 131072),
        (4096, {"type": "linear", "factor": 4.0}, 16384),
        (4096, {"type": "dynamic", "factor": 2.0}, 8192),
        (131072, {"type": "longrope", "original_max_position_embeddings": 4096}, 131072),
        (131072, {"type": "su", "original_max_position_embeddings": 4096}, 131072),
        (4096, {"type": "longrope", "factor": 32.0}, 131072),
        (32768, {"type": "mrope", "mrope_section": [16, 24, 24]}, 32768),
    ],
)
def test_a_scaling_that_stretches_positions_extends_the_context(stated: float, rope: Any, context: int) -> None:
    assert context_of(config(max_position_embeddings=stated, rope_scaling=rope)) == context
    assert context_of(config(rope_parameters=rope), default=int(stated)) == context


@pytest.mark.parametrize("stated", [0, 4096.5, "4096", True])
def test_a_context_is_a_whole_number(stated: Any) -> None:
    with pytest.raises(ModelError, match="max_position_embeddings"):
        context_of(config(max_position_embeddings=stated))


def test_a_context_that_counts_the_stretched_positions_is_not_extended() -> None:
    linear = {"rope_type": "linear", "factor": 8.0}
    assert context_of(config(model_type="gemma3_text", max_position_embeddings=131072, rope_scaling=linear)) == 131072
    by_type = {"full_attention": linear, "sliding_attention": {"rope_type": "default"}}
    assert context_of(config(max_position_embeddings=4096, rope_parameters=by_type)) == 4096
