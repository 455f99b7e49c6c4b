"""Encodings whose pieces begin with word marks instead of spaces, as those of sentencepiece do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drupe_onnxruntime.genai.tokenizer_form.merges import pairs_of
from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten
from drupe_tokenization import TokenizerDocument

MARK = "\u2581"
WORDS = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)|\s+",
)  # fmt: skip
"""Where byte-pair encodings with word marks are cut. Their pieces hardly ever cross these places."""


def has_word_marks(document: TokenizerDocument) -> bool:
    """Whether spaces become word marks, by a normalizer or a pre-tokenizer."""
    marks = (step.get("content") == MARK for step in document.steps("normalizer") if step.get("type") == "Replace")
    spaces = (step.get("replacement") for step in document.steps("pre_tokenizer") if step.get("type") == "Metaspace")
    return any(marks) or MARK in spaces


def _scheme(document: TokenizerDocument) -> str:
    """Where a word mark is put before a text: "each" stretch, "always" but not twice, "first" alone, or "never"."""
    for step in document.steps("normalizer"):
        if step.get("type") == "Prepend" and step.get("prepend") == MARK:
            return "each"
    for step in document.steps("pre_tokenizer"):
        if step.get("type") == "Metaspace":
            old = "always" if step.get("add_prefix_space", True) else "never"
            return str(step.get("prepend_scheme", old)).lower()
    return "never"


def with_word_marks(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """A tokenizer with word marks: where texts are cut, and whether a mark goes before them."""
    if not has_word_marks(document):
        return document, "", {}
    marked = _scheme(document) != "never"
    if not marked and _is_read_whole(document) and _reads_marks(document, marked):
        return document, "", {}
    whole = _merges_cross_cuts(document)
    cut_by_default = all(step.get("type") == "Metaspace" for step in document.steps("pre_tokenizer"))
    if cut_by_default and not whole and _reads_marks(document, marked):
        return document, "", {}
    module = {"tokenizer_class": WHOLE} if whole and marked else {}
    pattern = {"String": MARK * 9} if whole and not marked else {"Regex": "|".join(WORDS)}
    decoders = [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if marked else []),
    ]  # fmt: skip
    rewritten = document.changed(
        normalizer=None,
        pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
        decoder={"type": "Sequence", "decoders": decoders},
    )
    return rewritten, "the word marks are put where it puts them", module


def _is_read_whole(document: TokenizerDocument) -> bool:
    """Whether the runtime reads a text without cutting it: it does where the only pre-tokenizer splits at a text."""
    step = document.settings.get("pre_tokenizer")
    return isinstance(step, Mapping) and step.get("type") == "Split" and "String" in (step.get("pattern") or {})


def _reads_marks(document: TokenizerDocument, marked: bool) -> bool:
    """Whether the runtime sees in the decoder that there are word marks, and whether one goes before a text."""
    decoder = document.settings.get("decoder")
    steps = decoder.get("decoders", []) if isinstance(decoder, Mapping) else []
    seen = any((step.get("pattern") or {}).get("String") == MARK for step in steps)
    return seen and any(step.get("type") == "Strip" for step in steps) == marked


_UNCUT = re.compile(r"[RSP]?L+|N{1,3}|S?P+R*|S*R+|S+")
WHOLE = "GemmaTokenizer"
"""The class whose texts are not cut, although a word mark goes before them."""
CROSSING = 0.05
"""The share of merges across a cut from which on a text is better not cut."""


def _merges_cross_cuts(document: TokenizerDocument) -> bool:
    """Whether many merges make pieces that `WORDS` would cut, such as names with digits in them."""
    pieces = ["".join(pair) for pair in pairs_of(document)]
    crossing = sum(not _UNCUT.fullmatch("".join(map(_letter, piece))) for piece in pieces)
    return crossing > CROSSING * len(pieces)


def _letter(character: str) -> str:
    """The class of a character: letter, number, line end, space, other."""
    if character.isalpha():
        return "L"
    if character.isnumeric():
        return "N"
    if character in "\r\n":
        return "R"
    return "S" if character == MARK or character.isspace() else "P"


def with_spaces_in_tokens(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """Special tokens once more with the space beside them, where that space vanishes or is a word mark already."""
    space_behind = has_word_marks(document) and _scheme(document) in ("always", "first")
    more = []
    for token in document.added_tokens:
        if token.get("special") and space_behind and not token.get("rstrip"):
            more.append({**token, "content": token["content"] + " "})
        if token.get("special") and token.get("lstrip"):
            more.append({**token, "content": " " + token["content"]})
    if not more:
        return document, "", {}
    rewritten = document.changed(added_tokens=[*document.added_tokens, *more])
    return rewritten, "the special tokens take a space beside them", {}
