"""The pre-tokenizers of a byte-level encoding, as regular expressions that onnxruntime-genai knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten, Use
from drupe_onnxruntime.genai.tokenizer_form.word_marks import has_word_marks
from drupe_tokenization import TokenizerDocument

GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d", r" ?\p{L}+| ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", r"\s+(?!\S)|\s+")
KNOWN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"'s|'t|'re|'ve|'m|'ll|'d",
    r" ?[^\s\p{L}\p{N}]+", r" ?\p{L}+| ?\p{N}+", r"[\p{L}]+|[\p{N}]", r"[^\s\p{L}\p{N}]+", r"\s+(?!\S)|\s+",
    r"\p{N}{1,3}", r"\s*[\r\n]+", r"\p{N}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
)  # fmt: skip
"""The alternatives that the runtime has code for, in the order in which it looks for them."""
NEAREST: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"[\r\n]", (r"\s*[\r\n]+",)),
    (r"\s?[A-Za-z", GPT2[1:2]),
    (r"\s?\p{L}+", GPT2[1:2]),
    (r"\s?[!-/", GPT2[2:3]),
    (r"\s?\p{P}+", GPT2[2:3]),
    (r"\s+$", GPT2[3:]),
    ("[\u4e00-\u9fa5", ("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",)),
    (r"[0-9][0-9][0-9]", (r"\p{N}{1,3}",)),
)
"""Other expressions, by how they begin, and the known ones that come nearest."""


def with_known_splits(document: TokenizerDocument, use: Use) -> Rewritten:
    """The pre-tokenizers of a byte-level encoding as splits that the runtime knows."""
    steps = document.steps("pre_tokenizer")
    if has_word_marks(document) or not any(step.get("type") == "ByteLevel" for step in steps):
        return Rewritten(document)
    top = document.settings["pre_tokenizer"]
    read = [_expression(step) for step in top.get("pretokenizers", [top]) if step.get("type") == "Split"]
    default = "|".join(GPT2) if use.class_name != "Llama" else ""
    meant = [expression for step in steps for expression in _splits(step)]
    if meant == (read or [default]) or not meant:
        return Rewritten(document)
    splits = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in meant
    ]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    rewritten = document.changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, last]})
    return Rewritten(rewritten, "the pre-tokenizers are regular expressions that it knows")


def _splits(step: Mapping[str, Any]) -> list[str]:
    """The expressions that split as a pre-tokenizer does, as far as the runtime knows some."""
    kind = step.get("type")
    if kind == "ByteLevel":
        return ["|".join(GPT2)] if step.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}"] if step.get("individual_digits") else []
    if kind == "Punctuation":
        return [r"[^\s\p{L}\p{N}]+"] if step.get("behavior") == "Contiguous" else []
    if kind != "Split":
        return []
    expression = _expression(step)
    if not expression or _known(expression):
        return [expression] if expression else []
    nearest = next((found for beginning, found in NEAREST if expression.startswith(beginning)), (expression,))
    return ["|".join(nearest)]


def _expression(step: Mapping[str, Any]) -> str:
    pattern = step.get("pattern")
    return str(pattern.get("Regex", "")) if isinstance(pattern, Mapping) else ""


def _known(expression: str) -> bool:
    """Whether the runtime has code for each alternative of a regular expression."""
    rest = f"|{expression}|"
    for alternative in KNOWN:
        rest = rest.replace(f"|{alternative}|", "|")
    return rest == "|"
