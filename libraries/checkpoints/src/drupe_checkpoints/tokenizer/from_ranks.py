"""tokenizer.json from lists of bytes and ranks: tiktoken's files, and Mistral's tekken.json.

tiktoken merges the pair whose bytes have the lowest rank. The id of a token is its rank, or its rank behind the special
tokens.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import ModelError, counted
from drupe_checkpoints.tokenizer.merges import merges_by_score
from drupe_checkpoints.tokenizer.parts import (
    LLAMA3_WORDS,
    QWEN2_WORDS,
    Json,
    added_token,
    bpe,
    byte_level,
    sequence,
    split,
    tokenizer_json,
)
from drupe_checkpoints.tokenizer.settings import FETCH_AGAIN, Settings, content_of, read_object
from drupe_files import unreadable

TEKKEN = "tekken.json"
LLAMA3_RANKS = 128000
LLAMA3_SPECIAL = {
    0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id", 7: "end_header_id",
    8: "eom_id", 9: "eot_id", 10: "python_tag",
}  # fmt: skip
"""Llama 3.1's special tokens, by their place behind the others. The rest of 256 is reserved."""
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
QWEN_RANKS = 151643
NFC: Json = {"type": "NFC"}


def from_tiktoken(path: Path, settings: Settings, cure: str) -> Json:
    """The tokenizer.json of a file of tiktoken: a line for each token, with its bytes in base64 and its rank.

    The file says neither how text is split nor what tokens are special. Raises ModelError where nothing else does.
    """
    ranks = _ranks(path)
    listed = settings.config.get("added_tokens_decoder")
    special = _listed(listed) if isinstance(listed, Mapping) else {}
    if settings.model_type.startswith("llama") and len(ranks) == LLAMA3_RANKS:
        words, normalizer = LLAMA3_WORDS, None
        special = special or {LLAMA3_RANKS + place: text for place, text in enumerate(_llama3_special())}
    elif settings.model_type.startswith("qwen") and len(ranks) == QWEN_RANKS:
        words, normalizer = QWEN2_WORDS, NFC
        special = special or {QWEN_RANKS + place: text for place, text in enumerate(QWEN_SPECIAL)}
    else:
        raise ModelError(
            f"{path.name} has {counted(len(ranks), 'token')} of tiktoken, and does not say how text is split; "
            "that is known for "
            f"Llama 3, which has {LLAMA3_RANKS}, and for Qwen, which has {QWEN_RANKS}",
            where=path,
            cure=cure,
        )
    behind = range(len(ranks), max(special, default=0) + 1)
    special |= {number: f"<|reserved_token_{number}|>" for number in behind if number not in special}
    return _document(ranks, special, words, normalizer)


def ids_of(path: Path) -> dict[str, int]:
    """The tokens of a file of tiktoken as tokenizer.json writes them, and their ids. Raises ModelError."""
    return _written(_ranks(path))


def _written(ranks: Mapping[bytes, int]) -> dict[str, int]:
    """The tokens as tokenizer.json writes them: a letter for each byte."""
    letters = _letters()
    return {token.decode("latin-1").translate(letters): number for token, number in ranks.items()}


def from_tekken(path: Path) -> Json:
    """The tokenizer.json of tekken.json, which says everything. Raises ModelError for a damaged file."""
    held = read_object(path) or {}
    try:
        config = held["config"]
        count = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - count
        ranks = {
            base64.b64decode(each["token_bytes"]): count + place for place, each in enumerate(held["vocab"][:size])
        }
        named = held.get("special_tokens") or [{"rank": place, "token_str": text} for place, text in OLD_TEKKEN.items()]
        special = {int(each["rank"]): str(each["token_str"]) for each in named}
        words = str(config["pattern"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path.name} is not a tokenizer of Mistral", where=path, cure=FETCH_AGAIN) from error
    special |= {place: f"<SPECIAL_{place}>" for place in range(count) if place not in special}
    return _document(ranks, special, words, None)


OLD_TEKKEN = dict(enumerate((
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)))  # fmt: skip
"""The special tokens of files that do not list them."""


def _document(ranks: Mapping[bytes, int], special: Mapping[int, str], words: str, normalizer: Json | None) -> Json:
    vocab = _written(ranks)
    merges = merges_by_score({text: -number for text, number in vocab.items()})
    inside = {content: number for number, content in special.items() if number < max(ranks.values())}
    return tokenizer_json(
        bpe(vocab | inside, merges, ignore_merges=True),
        added_tokens=[added_token(number, special[number], special=True) for number in sorted(special)],
        normalizer=normalizer,
        pre_tokenizer=sequence("pretokenizers", [split(words), byte_level(cuts=False)]),
        decoder=byte_level(cuts=True),
    )


def _letters() -> dict[int, str]:
    """The letter that ByteLevel writes for each byte: itself where it can be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def _ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = path.read_bytes().split(b"\n")
        pairs = [line.split() for line in lines if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, binascii.Error) as error:
        raise ModelError(
            f"{path.name} is neither a model of sentencepiece nor a list of tiktoken", where=path, cure=FETCH_AGAIN
        ) from error
    if len(ranks) != len(pairs) or sorted(ranks.values()) != list(range(len(ranks))):
        raise ModelError(f"the ranks in {path.name} have gaps or repetitions", where=path, cure=FETCH_AGAIN)
    return ranks


def _listed(decoder: Mapping[str, Any]) -> dict[int, str]:
    return {int(number): text for number, value in decoder.items() if number.isdigit() and (text := content_of(value))}


def _llama3_special() -> Sequence[str]:
    reserved = iter(range(256))
    return [
        f"<|{LLAMA3_SPECIAL[place]}|>" if place in LLAMA3_SPECIAL else f"<|reserved_special_token_{next(reserved)}|>"
        for place in range(256)
    ]
