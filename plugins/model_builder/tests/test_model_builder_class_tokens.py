"""The tokens of transformers' configuration classes, by family, are those that a checkpoint without its own gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe_checkpoints import Checkpoint
from drupe_checkpoints.class_tokens import KEYS, NONE, classes
from drupe_model_builder.finding import own_families


def test_the_table_of_tokens_has_those_of_the_class_of_each_family() -> None:
    """`python tools/class_tokens.py` writes it."""
    mapping = pytest.importorskip("transformers").CONFIG_MAPPING
    made = {name: mapping[name]() for name in own_families() if name in mapping}
    found = {name: [getattr(config, key, None) for key in KEYS] for name, config in made.items()}
    assert found == {name: list(classes().get(name, NONE)) for name in found}


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({}, None, (2,)),
        ({"eos_token_id": 7}, None, (7,)),
        ({"eos_token_id": None}, None, ()),
        ({"vocab_size": 2}, None, ()),
        ({"model_type": "qwen2"}, None, ()),
        ({"model_type": "glm", "vocab_size": 151552}, None, (151329, 151336, 151338)),
        ({}, {}, ()),
        ({}, {"eos_token_id": [5, 6]}, (5, 6)),
    ],
)
def test_the_class_ends_answers_where_no_file_says_it(
    config: dict[str, Any], generation: dict[str, Any] | None, ends: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 100, **config}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert Checkpoint.open_folder(tmp_path).end_tokens == ends
