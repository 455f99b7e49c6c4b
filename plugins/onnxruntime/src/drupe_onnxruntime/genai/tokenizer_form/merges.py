"""Merges, written as pairs where onnxruntime-genai would misread them as texts."""

from __future__ import annotations

import json
import re

from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten, Use
from drupe_tokenization import TokenizerDocument

_RETURN = re.compile(rb"(?<!\\)(?:\\\\)*\\r")
"""A carriage return in a JSON string: an even number of backslashes before it stands for themselves."""


def with_pairs(document: TokenizerDocument, use: Use) -> Rewritten:
    """Merges as pairs, where texts would be misread."""
    merges = document.merges or b"[]"
    first = merges[1:200].lstrip()
    misread = first.startswith(b'"#') or (b"\\r" in merges and _RETURN.search(merges))
    if not first.startswith(b'"') or not misread:
        return Rewritten(document)
    written = json.dumps(pairs_of(document), ensure_ascii=False, separators=(",", ":")).encode()
    rewritten = TokenizerDocument(document.settings, document.vocabulary, written)
    return Rewritten(rewritten, "the merges are pairs")


def pairs_of(document: TokenizerDocument) -> list[list[str]]:
    merges = json.loads(document.merges or b"[]")
    return [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
