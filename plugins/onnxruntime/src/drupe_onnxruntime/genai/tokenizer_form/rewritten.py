"""What the rewritings of a tokenizer have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_tokenization import TokenizerDocument

Rewritten = tuple[TokenizerDocument, str, dict[str, Any]]
"""What a rewriting gives: the document, the same one where nothing changes; what is different, in words; and settings
that go before those in tokenizer_config.json."""


def class_name(config: Mapping[str, Any]) -> str:
    """The class without "Tokenizer" and what follows, as the runtime cuts it."""
    return str(config.get("tokenizer_class") or "").partition("Tokenizer")[0]
