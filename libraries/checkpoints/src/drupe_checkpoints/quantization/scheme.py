"""What the readers of all methods need: bits, groups, patterns of modules, and the error for what is not supported."""

from __future__ import annotations

import re
from pathlib import Path

from drupe.api import ModelError, counted
from drupe_checkpoints.configuration import Configuration
from drupe_packed.packing import BITS

KEY = "quantization_config"
START_AGAIN = "use the checkpoint that it was quantized from, in float16, bfloat16 or float32"
LONGEST_GROUP = 1 << 20


def bits_of(section: Configuration, key: str, known: tuple[int, ...] = BITS) -> int:
    bits = section.integer(key)
    if bits not in known:
        raise refused(
            section, f"weights of {counted(bits, 'bit')} are not supported; supported: {', '.join(map(str, known))}"
        )
    return bits


def group_size_of(section: Configuration, key: str) -> int | None:
    """How many values share a scale; None for -1, which stands for a whole row."""
    return None if section.get(key) == -1 else section.integer(key, most=LONGEST_GROUP)


def refuse_pattern(target: str, path: Path) -> None:
    """Raise ModelError for a target that is no regular expression."""
    try:
        re.compile(target.removeprefix("re:"))
    except re.error as error:
        raise ModelError(
            f"the target '{target}' in {KEY} is not a regular expression: {error}",
            where=path,
            cure="correct the pattern in the file; it is matched with the names of modules",
        ) from error


def refused(section: Configuration, what: str) -> ModelError:
    return ModelError(what, where=section.path, cure=START_AGAIN)
