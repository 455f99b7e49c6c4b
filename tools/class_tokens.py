"""Writes the table of the special tokens of transformers' configuration classes: python tools/class_tokens.py.

Needs transformers. The table has every class with a vocabulary, so that a new family finds its row there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "libraries/checkpoints/src/drupe_checkpoints/class_tokens.json"
KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def table() -> dict[str, list[Any]]:
    """By `model_type`, the tokens of KEYS, of the classes that have some."""
    from transformers import CONFIG_MAPPING

    found = {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        try:
            made = CONFIG_MAPPING[model_type]()
        except Exception as error:
            print(f"{model_type} is left out: {type(error).__name__}")
            continue
        tokens = [getattr(made, key, None) for key in KEYS]
        if hasattr(made, "vocab_size") and any(token is not None for token in tokens):
            found[model_type] = tokens
    return found


def written(content: dict[str, list[Any]]) -> str:
    """The table as text, with a line for each class."""
    lines = [f"{json.dumps(model_type)}: {json.dumps(tokens)}" for model_type, tokens in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(written(table()), encoding="utf-8")
