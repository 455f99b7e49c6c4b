"""Encodings whose pieces begin with word marks instead of spaces, as those of sentencepiece do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drupe_onnxruntime.genai.tokenizer_form.merges import pairs_of
from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten, Use
from drupe_tokenization import TokenizerDocument

MARK = "\u2581"
WORDS = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)|\s+",
)  # fmt: skip
"""Where byte-pair encodings with word marks are cut. Their pieces hardly ever cross these places."""

_UNCUT = re.compile(r"[RSP]?L+|N{1,3}|S?P+R*|S*R+|S+")
SPACE_FIRST = (
    "in a script of onnxruntime-genai alone, put a space before a text that begins with neither a space nor a special "
    "token"
)
WHOLE = "GemmaTokenizer"
"""The class whose texts are not cut, although a word mark goes before them."""
SAMPLE = 50_000
"""How many merges are looked at, out of any number."""
CROSSING = 0.05
"""The share of merges across a cut from which on a text is better not cut."""


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


def _scheme_for(document: TokenizerDocument, use: Use) -> str:
    """The scheme that comes nearest. The runtime puts a mark before each stretch of text or before none.

    With "first", none is right behind a special token; before a text that is no prompt, or where each special token has
    a space behind it, a mark is.
    """
    scheme = _scheme(document)
    return "never" if scheme == "first" and not _spaces_follow(document, use.prompt) else scheme


def _spaces_follow(document: TokenizerDocument, prompt: str) -> bool:
    """Whether a space, another special token, or nothing is behind each special token of a prompt."""
    special = [re.escape(token["content"]) for token in document.added_tokens if token.get("special")]
    if not special:
        return True
    pieces = re.split("|".join(sorted(special, key=len, reverse=True)), prompt)
    return all(piece == "" or piece.startswith(" ") for piece in pieces[1:])


def with_word_marks(document: TokenizerDocument, use: Use) -> Rewritten:
    """A tokenizer with word marks: where texts are cut, and whether a mark goes before them."""
    if not has_word_marks(document):
        return Rewritten(document)
    scheme = _scheme_for(document, use)
    marked = scheme != "never"
    if not marked and _is_read_whole(document) and _reads_marks(document, marked):
        return Rewritten(document)
    whole = _merges_cross_cuts(document)
    rewritten, changes = document, []
    if scheme in ("always", "first"):
        rewritten = _with_spaces_behind(rewritten)
        changes.append("the special tokens take the space behind them")
    cut_by_default = all(step.get("type") == "Metaspace" for step in document.steps("pre_tokenizer"))
    if whole or not cut_by_default or not _reads_marks(document, marked):
        rewritten = _with_marks(rewritten, marked, whole)
        changes.append("the word marks are put where it puts them")
    module = {"tokenizer_class": WHOLE} if whole and marked else {}
    cure = SPACE_FIRST if scheme != _scheme(document) else ""
    return Rewritten(rewritten, ", ".join(changes), module, cure)


def _with_spaces_behind(document: TokenizerDocument) -> TokenizerDocument:
    """Special tokens once more with the space behind them, which becomes the word mark that is put there anyway."""
    tokens = [token for token in document.added_tokens if token.get("special") and not token.get("rstrip")]
    more = [{**token, "content": token["content"] + " "} for token in tokens]
    return document.changed(added_tokens=[*document.added_tokens, *more])


def _with_marks(document: TokenizerDocument, marked: bool, whole: bool) -> TokenizerDocument:
    """The document with a word mark before each stretch of text or before none, whose texts are cut or left whole."""
    pattern = {"String": MARK * 9} if whole and not marked else {"Regex": "|".join(WORDS)}
    decoders = [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if marked else []),
    ]  # fmt: skip
    return document.changed(
        normalizer=None,
        pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
        decoder={"type": "Sequence", "decoders": decoders},
    )


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


def _merges_cross_cuts(document: TokenizerDocument) -> bool:
    """Whether many merges make pieces that `WORDS` would cut, such as names with digits in them."""
    pairs = pairs_of(document)
    pieces = ["".join(pair) for pair in pairs[:: 1 + len(pairs) // SAMPLE]]
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
