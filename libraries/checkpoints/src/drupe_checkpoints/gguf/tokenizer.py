"""A GGUF file's tokenizer as tokenizer.json: byte-level BPE. The file only names the rules that split text."""

from __future__ import annotations

import re
from typing import Any

from drupe.api import ModelError
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.tokenizer.parts import (
    LLAMA3_WORDS,
    QWEN2_WORDS,
    Json,
    added_token,
    bpe,
    byte_level,
    encoded,
    split,
    template,
    tokenizer_json,
)

LAY_BESIDE = "put the model's tokenizer.json, and tokenizer_config.json if it has one, beside the file"
CONTROL, USER_DEFINED = 3, 4
NAME_OF_A_TEMPLATE = re.compile(r"\w[\w.-]*")
SPECIAL = {"bos_token_id": "bos_token", "eos_token_id": "eos_token", "padding_token_id": "pad_token"}

# By `tokenizer.ggml.pre`: the steps that split text into words.
CUTTING: dict[str, list[Json]] = {
    "gpt-2": [byte_level(cuts=True)],
    "llama-bpe": [split(LLAMA3_WORDS), byte_level(cuts=False)],
    "qwen2": [split(QWEN2_WORDS), byte_level(cuts=False)],
    "smollm": [{"type": "Digits", "individual_digits": True}, byte_level(cuts=True)],
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
    document = tokenizer_json(
        _model(tokens, merges, cutting, metadata),
        added_tokens=[
            added_token(number, token, special=kind == CONTROL)
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        normalizer={"type": "NFC"} if cutting == "qwen2" else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": CUTTING[cutting]},
        post_processor=_first_token(metadata, tokens, cutting),
        decoder=byte_level(cuts=True),
    )
    files = {"tokenizer.json": encoded(document), "tokenizer_config.json": encoded(_settings(metadata, tokens))}
    return files | _chat_templates(metadata)


def _chat_templates(metadata: Configuration) -> dict[str, bytes]:
    """The file's chat templates: the default one, and others by their names."""
    names = metadata.get("tokenizer.chat_templates", ())
    keys = {"chat_template.jinja": "tokenizer.chat_template"} | {
        f"additional_chat_templates/{name}.jinja": f"tokenizer.chat_template.{name}"
        for name in names
        if isinstance(name, str) and NAME_OF_A_TEMPLATE.fullmatch(name) and name != "default"
    }
    texts = {file: metadata.get(key) for file, key in keys.items()}
    return {file: text.encode("utf-8", "surrogateescape") for file, text in texts.items() if isinstance(text, str)}


def _model(tokens: tuple[str, ...], merges: tuple[str, ...], cutting: str, metadata: Configuration) -> Json:
    pairs = [merge.split(" ") for merge in merges]
    wrong = next((merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise ModelError(
            f"the merge {wrong!r} in the file's tokenizer is not a pair", where=metadata.path, cure=LAY_BESIDE
        )
    vocab = {token: number for number, token in enumerate(tokens)}
    return bpe(vocab, pairs, ignore_merges=cutting in WHOLE_WORDS)


def _first_token(metadata: Configuration, tokens: tuple[str, ...], cutting: str) -> Json | None:
    """The step that puts the first token before a text; None where the tokenizer has no such token."""
    number = metadata.get("tokenizer.ggml.bos_token_id")
    wanted = metadata.get("tokenizer.ggml.add_bos_token", cutting in BEGINS)
    if not wanted or not isinstance(number, int) or not 0 <= number < len(tokens):
        return None
    return template([(tokens[number], number)], [])


def _settings(metadata: Configuration, tokens: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, name in SPECIAL.items():
        number = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[name] = tokens[number]
    return found
