"""What the rewritings of a tokenizer have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Record, field
from drupe_tokenization import TokenizerDocument


class Use(Record):
    """How a tokenizer is used.

    config: the object in tokenizer_config.json. prompt: one that the chat template makes; "" where there is none.
    """

    config: Mapping[str, Any]
    prompt: str = ""

    @property
    def class_name(self) -> str:
        """The class without "Tokenizer" and what follows, as the runtime cuts it."""
        return str(self.config.get("tokenizer_class") or "").partition("Tokenizer")[0]


class Rewritten(Record):
    """What a rewriting gives.

    document: the same one where nothing changes. change: what is different, in words. module: settings that go before
    those in tokenizer_config.json. cure: what a script has to do about what remains.
    """

    document: TokenizerDocument
    change: str = ""
    module: Mapping[str, Any] = field(default_factory=dict)
    cure: str = ""
