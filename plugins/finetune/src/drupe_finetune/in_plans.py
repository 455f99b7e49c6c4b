"""Errors of a training in a plan: they name the keys of its pass, where those of `drupe finetune` name its flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from drupe.api import DrupeError
from drupe_finetune.settings import FinetuneConfig

DATA = "--train-on"
"""The option of `drupe optimize` for the data."""
_FLAGS = "|".join(name.replace("_", "-") for name in FinetuneConfig.model_fields)
_FLAG = rf"--({_FLAGS})(?![\w.-])"
_SAID = re.compile(rf"{_FLAG}(?: (?='|full\b|q?lora\b|loftq\b))?")
"""In a sentence, words follow a flag; only some of them are values."""
_TYPED = re.compile(rf"{_FLAG}(?: (?=['\w.{{]))?")
"""In what is to be typed, values follow."""


@contextmanager
def keys_of(owner: str) -> Iterator[None]:
    """Let errors name the keys of the pass `owner`."""
    try:
        yield
    except DrupeError as error:
        error.what = _with_keys(error.what, owner, _SAID)
        error.cure = _with_keys(error.cure, owner, _TYPED) if error.cure else error.cure
        if isinstance(error.where, str):
            error.where = _with_keys(error.where, owner, _SAID)
        raise


def _with_keys(text: str, owner: str, flag: re.Pattern[str]) -> str:
    """A text in which keys stand in place of flags; a whole command line stays as it is."""
    return text if "drupe finetune" in text else flag.sub(lambda found: _key(found, owner), text)


def _key(found: re.Match[str], owner: str) -> str:
    has_value = found[0].endswith(" ")
    if found[1] == "data":
        return f"{DATA} " if has_value else DATA
    return f"--set {owner}.{found[1].replace('-', '_')}" + ("=" if has_value else "")
