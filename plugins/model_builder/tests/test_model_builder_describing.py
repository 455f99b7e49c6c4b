"""Compositions in words."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from drupe_checkpoints import open_checkpoint
from drupe_model_builder.describing import PARTS, SIZES, described
from drupe_model_builder.finding import composition_of
from drupe_model_builder.parts.step import Part


def test_every_part_has_a_name_and_words_of_its_own() -> None:
    assert set(get_args(Part)) == set(PARTS) == set(SIZES)


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
    found = described(composition_of(open_checkpoint(tmp_path)))
    first, middle, last = found["layer groups"]
    assert "short convolution (64 channels, over 3 tokens)" in first["text"]
    assert "MLP (128 wide, silu)" in first["text"]
    assert "experts (2 of 8 experts, 32 wide, chosen by sigmoid)" in last["text"]
    assert [each["layers"] for each in (first, middle, last)] == [[0], [1], [2]]
    assert first["parts"] == [
        {"part": "short convolution", "channels": 64, "convolution": 3},
        {"part": "MLP", "size": 128, "activation": "silu"},
    ]
    assert last["parts"][1] == {"part": "experts", "experts": 8, "chosen": 2, "size": 32, "groups": 1}
    assert json.loads(json.dumps(found)) == found, "plain values only"


@pytest.mark.parametrize("part", SIZES)
def test_the_sizes_of_every_part_are_attributes_of_it(part: type) -> None:
    for path in SIZES[part].values():
        holders: tuple[type, ...] = (part,)
        for name in path.split("."):
            hints = [each for holder in holders for each in _types(holder, name)]
            assert hints, f"{part.__name__} has no {path}"
            holders = tuple(hints)


def _types(holder: type, name: str) -> list[type]:
    """The types that an attribute of a class may have."""
    member = inspect.getattr_static(holder, name, None)
    hints = get_type_hints(member.fget) if isinstance(member, property) else get_type_hints(holder)
    hint = hints.get("return" if isinstance(member, property) else name)
    return [] if hint is None else [each for each in (get_args(hint) or (hint,)) if each is not type(None)]
