"""with_class_tokens: the special tokens that transformers' configuration classes have where config.json names none.

They stand in class_tokens.json, which tools/class_tokens.py makes out of these classes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from drupe_checkpoints.configuration import Configuration

KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
Tokens = Sequence[int | list[int] | None]
NONE: Tokens = (None, None, None)


@functools.cache
def classes() -> Mapping[str, Tokens]:
    """By `model_type`, the tokens of KEYS in transformers 5. A class that is not here has none."""
    found: Mapping[str, Tokens] = json.loads(
        files("drupe_checkpoints").joinpath("class_tokens.json").read_text("utf-8")
    )
    return found


def with_class_tokens(config: Configuration) -> Configuration:
    """The configuration, with its class's tokens for keys that it leaves out. A key that is null stays null.

    Tokens that the model does not have are left out: they end nothing, in transformers as well.
    """
    kind, rows = config.get("model_type"), config.get("vocab_size")
    tokens = classes().get(kind, NONE) if isinstance(kind, str) else NONE
    return config.with_defaults({key: token for key, token in zip(KEYS, tokens, strict=True) if _has(rows, token)})


def _has(rows: object, token: int | list[int] | None) -> bool:
    """Whether a model of so many tokens has the token, or all of several."""
    if token is None or not isinstance(rows, int):
        return False
    return max(token) < rows if isinstance(token, list) else token < rows
