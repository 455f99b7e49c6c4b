"""Compositions in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from drupe_checkpoints import open_checkpoint
from drupe_model_builder.describing import PARTS, in_words
from drupe_model_builder.finding import composition_of
from drupe_model_builder.parts.step import Part


def test_every_part_has_a_name_and_words_of_its_own() -> None:
    assert set(get_args(Part)) == set(PARTS)


def test_experts_and_convolutions_are_described_with_their_sizes(tmp_path: Path) -> None:
    config = {
        "model_type": "lfm2_moe",
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_dense_layers": 1,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "layer_types": ["conv", "conv", "full_attention"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = in_words(composition_of(open_checkpoint(tmp_path)))
    assert "short convolution (64 channels, over 3 tokens)" in words["layer 0"]
    assert "MLP (128 wide, silu)" in words["layer 0"]
    assert "experts (2 of 8 experts, 32 wide, chosen by sigmoid)" in words["layer 2"]
