"""awkward_texts: texts on which two readers of one tokenizer are likely to differ.

The fixed ones are in awkward_texts.json, in ASCII, because editors change line ends and composed accents. There is no
NUL character among them: programs in C take it for the end of a text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

PLACES = (
    "{}", "a{}b", " {} ", "a {} b", "{}\n", "{}{}", "{}Hello", "{} Hello", "{}\nHello\n", "Hello \n {} \n x", "\r\n{}1",
)  # fmt: skip
"""Where a token of the tokenizer's own stands in a text."""
AT_EACH_END, OF_A_KIND = 6, 6


def awkward_texts(added_tokens: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The fixed texts, and texts with the tokenizer's own added tokens in them.

    added_tokens: the entries of tokenizer.json. Of many, the first and last are taken, and some with special rules.
    """
    ruled = [token for token in added_tokens if any(token.get(rule) for rule in ("lstrip", "rstrip", "single_word"))]
    plain = [token for token in added_tokens if not token.get("special")]
    chosen = [*added_tokens[:AT_EACH_END], *added_tokens[-AT_EACH_END:], *ruled[:OF_A_KIND], *plain[:OF_A_KIND]]
    own = [place.replace("{}", token["content"]) for token in chosen for place in PLACES]
    return list(dict.fromkeys([*_fixed(), *own]))


@functools.cache
def _fixed() -> tuple[str, ...]:
    text = resources.files(__package__).joinpath("awkward_texts.json").read_text("ascii")
    groups: dict[str, list[str]] = json.loads(text)
    return tuple(text for group in groups.values() for text in group)
