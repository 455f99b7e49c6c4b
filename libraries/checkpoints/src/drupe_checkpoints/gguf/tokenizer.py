"""A GGUF file's tokenizer as tokenizer.json: byte-level BPE. The file only names the rules that split text."""

from __future__ import annotations

import json
from typing import Any

from drupe.api import ModelError
from drupe_checkpoints.configuration import Configuration

LAY_BESIDE = "put the model's tokenizer.json, and tokenizer_config.json if it has one, beside the file"
CONTROL, USER_DEFINED = 3, 4
SPECIAL = {"bos_token_id": "bos_token", "eos_token_id": "eos_token", "padding_token_id": "pad_token"}

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _bytes(*, cuts: bool) -> dict[str, Any]:
    """The step that turns text into bytes; with `cuts` it also splits text into words, as GPT-2 does."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": cuts}


# By `tokenizer.ggml.pre`: the steps that split text into words.
CUTTING: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_bytes(cuts=True)],
    "llama-bpe": [_split(_LLAMA3), _bytes(cuts=False)],
    "qwen2": [_split(_QWEN2), _bytes(cuts=False)],
    "smollm": [{"type": "Digits", "individual_digits": True}, _bytes(cuts=True)],
}
BEGINS = frozenset({"llama-bpe"})
"""Tokenizers that put the first token before a text unless the file says otherwise."""
WHOLE_WORDS = frozenset({"llama-bpe"})
"""Tokenizers that use a word as one token where it is in the vocabulary, without merging."""


def tokenizer_files(metadata: Configuration) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json and the chat template. Raises ModelError for an unsupported tokenizer."""
    model, cutting = metadata.text("tokenizer.ggml.model", ""), metadata.text("tokenizer.ggml.pre", "")
    if model != "gpt2" or cutting not in CUTTING:
        named = f"of the kind '{model}'" if model != "gpt2" else f"that splits text by the rules '{cutting}'"
        raise ModelError(
            f"the file's tokenizer {named} cannot be turned into a tokenizer.json",
            where=metadata.path,
            cure=LAY_BESIDE,
        )
    tokens, merges = metadata.texts("tokenizer.ggml.tokens"), metadata.texts("tokenizer.ggml.merges")
    kinds = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if not tokens or len(set(tokens)) != len(tokens) or len(kinds) != len(tokens):
        raise ModelError(
            "the file's list of tokens is empty, has repetitions, or does not fit the list of their types",
            where=metadata.path,
            cure=LAY_BESIDE,
        )
    first = _first_token(metadata, tokens, cutting)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(number, token, special=kind == CONTROL)
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": {"type": "NFC"} if cutting == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": CUTTING[cutting]},
        "post_processor": first,
        "decoder": _bytes(cuts=True),
        "model": _model(tokens, merges, cutting, metadata),
    }
    files = {"tokenizer.json": _json(document), "tokenizer_config.json": _json(_settings(metadata, tokens))}
    if template := metadata.get("tokenizer.chat_template"):
        files["chat_template.jinja"] = str(template).encode("utf-8", "surrogateescape")
    return files


def _model(tokens: tuple[str, ...], merges: tuple[str, ...], cutting: str, metadata: Configuration) -> dict[str, Any]:
    pairs = [merge.split(" ") for merge in merges]
    wrong = next((merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise ModelError(
            f"the merge {wrong!r} in the file's tokenizer is not a pair", where=metadata.path, cure=LAY_BESIDE
        )
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": cutting in WHOLE_WORDS,
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": pairs,
    }


def _added(number: int, token: str, *, special: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **plain, "special": special}


def _first_token(metadata: Configuration, tokens: tuple[str, ...], cutting: str) -> dict[str, Any] | None:
    """The step that puts the first token before a text; None where the tokenizer has no such token."""
    number = metadata.get("tokenizer.ggml.bos_token_id")
    wanted = metadata.get("tokenizer.ggml.add_bos_token", cutting in BEGINS)
    if not wanted or not isinstance(number, int) or not 0 <= number < len(tokens):
        return None
    first = {"SpecialToken": {"id": tokens[number], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            first,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": tokens[number], "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {tokens[number]: {"id": tokens[number], "ids": [number], "tokens": [tokens[number]]}},
    }


def _settings(metadata: Configuration, tokens: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, name in SPECIAL.items():
        number = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[name] = tokens[number]
    return found


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
