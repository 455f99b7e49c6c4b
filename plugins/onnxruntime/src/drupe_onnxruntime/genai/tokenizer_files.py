"""The tokenizer's files, adapted to onnxruntime-genai's own tokenizer.

Its tokenizer (onnxruntime-extensions) is stricter than transformers. In onnxruntime-genai 0.18 it refuses, or reads
differently:

- a `tokenizer_class` that it does not know. `tokenizer.json` says all that the class would, so the generic class is
  named instead. transformers 5 writes `TokenizersBackend`, which transformers 4 and older runtimes do not know;
- no `tokenizer_class`, which it takes for a tokenizer of 2019 and then forgets the chat template and special tokens;
- a key that is null;
- special tokens that only `special_tokens_map.json` or the class names, for which its chat templates have no text.

Files that both read in the same way are not changed. `templates` is about chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError
from drupe_files import json_object
from drupe_onnxruntime.genai.templates.engine import KNOWN_TOKENS
from drupe_onnxruntime.genai.tokenizer_form.form import UNIGRAM_CLASSES, TokenizerForm, form_for
from drupe_onnxruntime.genai.tokenizer_form.rewritten import Use
from drupe_tokenization import TokenizerDocument, chat_templates, render, special_tokens

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
CONVERSATION = tuple({"role": role, "content": "Hello"} for role in ("user", "assistant", "user"))
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
    if not _is_known(config.get("tokenizer_class")) and tokenizer_in(files).kind == "BPE":
        config["tokenizer_class"] = GENERIC_CLASS
    older = _object(files, SPECIAL_TOKENS) or {}
    for key in TOKEN_KEYS:
        if config.get(key) is None and isinstance(text := _content(older.get(key)), str):
            config[key] = text
    tokens = special_tokens(before, older)
    config |= {key: tokens[key] for key in KNOWN_TOKENS if key in tokens and tokens[key] != _content(config.get(key))}
    if config != before:
        changed[CONFIG] = _text(config)
    return changed


def _content(token: object) -> object:
    """The text of a special token, which a file holds as a string or inside an object."""
    return token.get("content") if isinstance(token, dict) else token


def tokenizer_in(files: Mapping[str, Path | bytes]) -> TokenizerDocument:
    """The files' tokenizer.json. Raises ModelError for one that is not a tokenizer."""
    return TokenizerDocument.read(read(files[VOCABULARY]))


def own_form(files: Mapping[str, Path | bytes], document: TokenizerDocument) -> TokenizerForm:
    """The files' tokenizer, which is `document`, as onnxruntime-genai reads it as meant."""
    return form_for(document, Use(_object(files, CONFIG) or {}, _prompt(files)))


def _prompt(files: Mapping[str, Path | bytes]) -> str:
    """A prompt that the files' chat template makes; "" where it makes none."""
    try:
        templates = chat_templates(files)
        return render(templates.text(tools=False), CONVERSATION, None, templates.tokens)
    except ModelError:  # there is no template, or none that works: `templates` tells
        return ""


def _is_known(name: object) -> bool:
    """Whether onnxruntime-genai knows a class of tokenizers."""
    plain = name.removesuffix("Fast") if isinstance(name, str) else ""
    return plain in BPE_CLASSES or plain in UNIGRAM_CLASSES


def read(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _object(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where the file is missing."""
    if name not in files:
        return None
    content = files[name]
    return json_object(read(content), name, content if isinstance(content, Path) else name, FETCH_AGAIN)


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
