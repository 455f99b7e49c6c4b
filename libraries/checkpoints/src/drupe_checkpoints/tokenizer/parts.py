"""The parts that a tokenizer.json is put together from, as the library `tokenizers` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

MARK = "▁"
"""What stands for a space in the pieces of sentencepiece."""

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace("{1,3}", "")


def tokenizer_json(
    model: Json,
    *,
    added_tokens: Sequence[Json] = (),
    normalizer: Json | None = None,
    pre_tokenizer: Json | None = None,
    post_processor: Json | None = None,
    decoder: Json | None = None,
) -> Json:
    """A whole tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added_tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def bpe(vocab: Mapping[str, int], merges: Sequence[Sequence[str]], **changed: Any) -> Json:
    """A model that merges pairs of tokens; the first pair of `merges` that is in a text is merged first."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **changed,
        "vocab": dict(vocab),
        "merges": merges,
    }


def split(pattern: str, behavior: str = "Isolated") -> Json:
    """A step that cuts text at what the regular expression matches."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def byte_level(*, cuts: bool, prefix: bool = False) -> Json:
    """A step that turns text into bytes. cuts: it also splits text into words, as GPT-2 does. prefix: a space first."""
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": cuts}


def replace(what: str, by: str) -> Json:
    return {"type": "Replace", "pattern": {"String": what}, "content": by}


def replace_pattern(pattern: str, by: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": by}


def metaspace(scheme: str, mark: str = MARK) -> Json:
    """A step that writes spaces as `mark` and puts one before a text. scheme: "always", "first" or "never"."""
    return {"type": "Metaspace", "replacement": mark, "prepend_scheme": scheme, "split": False}


def sequence(kind: str, steps: Sequence[Json]) -> Json | None:
    """One step out of many. kind: "normalizers", "pretokenizers" or "decoders"."""
    if len(steps) < 2:
        return next(iter(steps), None)
    return {"type": "Sequence", kind: list(steps)}


def added_token(number: int, content: str, *, special: bool, **flags: bool) -> Json:
    """A token that is found in a text before anything else. flags: lstrip, rstrip, normalized, single_word."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, **plain, **flags, "special": special}


def template(first: Sequence[tuple[str, int]], last: Sequence[tuple[str, int]]) -> Json | None:
    """The step that puts tokens before and behind a text; None where there are none of them."""
    if not first and not last:
        return None

    def around(name: str, place: int) -> list[Json]:
        def token(each: tuple[str, int]) -> Json:
            return {"SpecialToken": {"id": each[0], "type_id": place}}

        return [*map(token, first), {"Sequence": {"id": name, "type_id": place}}, *map(token, last)]

    tokens = {content: {"id": content, "ids": [number], "tokens": [content]} for content, number in (*first, *last)}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": tokens,
    }


def encoded(document: Any) -> bytes:
    """A file's content. Single halves of surrogate pairs stand for bytes that were not UTF-8."""
    return (json.dumps(document, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
