"""The tokenizer's files, adapted to onnxruntime-genai's own tokenizer.

Its tokenizer (onnxruntime-extensions) is stricter than transformers. In onnxruntime-genai 0.18 it refuses, or reads
differently:

- a `tokenizer_class` that it does not know. `tokenizer.json` says all that the class would, so the generic class is
  named instead. transformers 5 writes `TokenizersBackend`, which transformers 4 and older runtimes do not know;
- no `tokenizer_class`, which it takes for a tokenizer of 2019 and then forgets the chat template and special tokens;
- a key that is null;
- special tokens that are only in `special_tokens_map.json`, for which its chat templates have no text.

Files that both read in the same way are not changed. `templates` is about chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError
from drupe_onnxruntime.genai.tokenizer_form import UNIGRAM_CLASSES, form_for
from drupe_tokenization import TokenizerDocument

CONFIG = "tokenizer_config.json"
VOCABULARY = "tokenizer.json"
SPECIAL_TOKENS = "special_tokens_map.json"

GENERIC_CLASS = "PreTrainedTokenizerFast"
BPE_CLASSES = frozenset(
    {
        "BaichuanTokenizer", "CLIPTokenizer", "CodeGenTokenizer", "CodeLlamaTokenizer", "GPT2Tokenizer",
        "GPTNeoXTokenizer", "GemmaTokenizer", "InternLM2Tokenizer", "LlamaTokenizer", "Phi3Tokenizer",
        "PreTrainedTokenizer", "Qwen2Tokenizer", "WhisperTokenizer",
    }
)  # fmt: skip
NULL_MEANS_ABSENT = (
    "chat_template", "clean_up_tokenization_spaces", "model_max_length", "tiktoken_file", "tokenizer_class",
)  # fmt: skip
FETCH_AGAIN = "download the tokenizer's files again, or save them with transformers"
TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token")


def readable(files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """The files that have to change for onnxruntime-genai, by name; empty where it reads all files unchanged.

    Raises ModelError for a missing tokenizer.json and for files that cannot be read.
    """
    if VOCABULARY not in files:
        raise ModelError(
            "the model has no tokenizer.json",
            cure="save the tokenizer with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    before = _object(files, CONFIG) or {}
    config = {key: value for key, value in before.items() if value is not None or key not in NULL_MEANS_ABSENT}
    changed: dict[str, Path | bytes] = {}
    kind = TokenizerDocument.read(read(files[VOCABULARY])).kind
    if name := _known_class(config.get("tokenizer_class"), kind):
        config["tokenizer_class"] = name
    for key, token in (_object(files, SPECIAL_TOKENS) or {}).items():
        text = token.get("content") if isinstance(token, dict) else token
        if key in TOKEN_KEYS and config.get(key) is None and isinstance(text, str):
            config[key] = text
    if config != before:
        changed[CONFIG] = _text(config)
    return changed


def write_own_form(files: dict[str, Path | bytes]) -> list[str]:
    """Add the tokenizer in a form of onnxruntime-genai's own where it would misread it; returns what is different."""
    form = form_for(TokenizerDocument.read(read(files[VOCABULARY])), _object(files, CONFIG) or {})
    files.update(form.files())
    return form.changes


def _known_class(name: object, kind: str) -> object:
    """`name` if onnxruntime-genai knows it or does not read such a tokenizer at all, otherwise the generic class."""
    plain = name.removesuffix("Fast") if isinstance(name, str) else ""
    return name if kind != "BPE" or plain in BPE_CLASSES or plain in UNIGRAM_CLASSES else GENERIC_CLASS


def read(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _object(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where the file is missing."""
    if name not in files:
        return None
    where = files[name] if isinstance(files[name], Path) else name
    try:
        value = json.loads(read(files[name]))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{name} is not JSON: {error}", where=where, cure=FETCH_AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} is not a JSON object", where=where, cure=FETCH_AGAIN)
    return value


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
