"""The tokenizer's files, adapted to onnxruntime-genai's own tokenizer.

Its tokenizer (onnxruntime-extensions) is stricter than transformers. In onnxruntime-genai 0.18 it refuses, or reads
differently:

- a `tokenizer_class` that it does not know. `tokenizer.json` says all that the class would, so the generic class is
  named instead. transformers 5 writes `TokenizersBackend`, which transformers 4 and older runtimes do not know;
- no `tokenizer_class`, which it takes for a tokenizer of 2019 and then forgets the chat template and special tokens;
- `chat_template` as a list of named templates: only the default one stays, and the others go into files of their own,
  where transformers keeps them today;
- `chat_template` beside `chat_template.jinja`: it reads the former, transformers the latter, so they are made equal;
- a key that is null;
- special tokens that are only in `special_tokens_map.json`, for which its chat templates have no text.

Files that both read in the same way are not changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError

CONFIG = "tokenizer_config.json"
VOCABULARY = "tokenizer.json"
TEMPLATE = "chat_template.jinja"
SPECIAL_TOKENS = "special_tokens_map.json"

GENERIC_CLASS = "PreTrainedTokenizerFast"
BPE_CLASSES = frozenset(
    {
        "BaichuanTokenizer", "CLIPTokenizer", "CodeGenTokenizer", "CodeLlamaTokenizer", "GPT2Tokenizer",
        "GPTNeoXTokenizer", "GemmaTokenizer", "InternLM2Tokenizer", "LlamaTokenizer", "Phi3Tokenizer",
        "PreTrainedTokenizer", "Qwen2Tokenizer", "WhisperTokenizer",
    }
)  # fmt: skip
UNIGRAM_CLASSES = frozenset(
    {"ChatGLMTokenizer", "DebertaV2Tokenizer", "MarianTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"}
)
NULL_MEANS_ABSENT = (
    "chat_template", "clean_up_tokenization_spaces", "model_max_length", "tiktoken_file", "tokenizer_class",
)  # fmt: skip
_KIND = re.compile(rb'"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"')
FETCH_AGAIN = "download the tokenizer's files again, or save them with transformers"
TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token")


def readable(files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """The files that have to change for onnxruntime-genai, by name; empty where it reads all files unchanged.

    Raises ModelError where it cannot read the tokenizer in any form.
    """
    if VOCABULARY not in files:
        raise ModelError(
            "the model has no tokenizer.json, the only format of tokenizers that onnxruntime-genai reads",
            cure="save the tokenizer with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    before = _object(files, CONFIG) or {}
    config = {key: value for key, value in before.items() if value is not None or key not in NULL_MEANS_ABSENT}
    changed: dict[str, Path | bytes] = {}
    config["tokenizer_class"] = _known_class(config.get("tokenizer_class"), _vocabulary_kind(files))
    for key, token in (_object(files, SPECIAL_TOKENS) or {}).items():
        text = token.get("content") if isinstance(token, dict) else token
        if key in TOKEN_KEYS and config.get(key) is None and isinstance(text, str):
            config[key] = text
    changed.update(_one_template(config, files))
    if config != before:
        changed[CONFIG] = _text(config)
    return changed


def _vocabulary_kind(files: Mapping[str, Path | bytes]) -> str:
    """The value of model.type, found without parsing the whole file if its layout is that of `tokenizers`."""
    if match := _KIND.search(read(files[VOCABULARY])):
        return match.group(1).decode()
    model = (_object(files, VOCABULARY) or {}).get("model")
    if not isinstance(model, dict):
        where = files[VOCABULARY] if isinstance(files[VOCABULARY], Path) else VOCABULARY
        raise ModelError(f"{VOCABULARY} is not a tokenizer: it has no model", where=where, cure=FETCH_AGAIN)
    return str(model.get("type", "BPE"))


def _known_class(name: object, kind: str) -> str:
    """`name` if onnxruntime-genai knows it, otherwise the generic class for the kind of tokenizer.json."""
    plain = name.removesuffix("Fast") if isinstance(name, str) else ""
    if kind == "BPE":
        known = plain in BPE_CLASSES or plain in UNIGRAM_CLASSES
        return str(name) if known else GENERIC_CLASS
    if kind == "Unigram" and plain in UNIGRAM_CLASSES:
        return str(name)
    raise ModelError(
        f"onnxruntime-genai does not support tokenizers of the kind {kind!r} and the class {name!r}",
        where=VOCABULARY,
        cure="leave the pass package-genai out, and run the model with the runtime onnxruntime",
    )


def _one_template(config: dict[str, Any], files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Make `config["chat_template"]` a single text or absent; returns files with the other templates."""
    template = config.get("chat_template")
    others: dict[str, Path | bytes] = {}
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template if isinstance(entry, dict) and len(entry) >= 2}
        default = named.pop("default", None)
        others = {
            f"additional_chat_templates/{name}.jinja": text.encode("utf-8")
            for name, text in named.items()
            if re.fullmatch(r"\w[\w.-]*", name)
        }
        if default is None:
            del config["chat_template"]
        else:
            config["chat_template"] = default
    if "chat_template" in config and TEMPLATE in files:
        config["chat_template"] = read(files[TEMPLATE]).decode("utf-8")
    return {name: text for name, text in others.items() if name not in files}


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
