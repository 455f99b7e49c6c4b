"""special_tokens: the texts of a tokenizer's named special tokens, which chat templates use by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_CLASSES: Mapping[str, Mapping[str, str]] = {
    "CodeLlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GPT2Tokenizer": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    "GPTNeoXTokenizer": {
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), "pad_token": "<|padding|>",
    },
    "GemmaTokenizer": {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
    },
    "Phi3Tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}  # fmt: skip
"""The special tokens of transformers' classes whose defaults are not none."""


def special_tokens(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    """The texts by name, as transformers 5 reads them.

    config: the object in tokenizer_config.json; older: that in special_tokens_map.json, which counts only where the
    configuration does not list the added tokens. A model's own names, such as `image_token`, are included, and what a
    class of tokenizers has where its configuration does not say.
    """
    class_name = str(config.get("tokenizer_class")).removesuffix("Fast")
    entries: dict[str, Any] = {**OF_CLASSES.get(class_name, {}), **config}
    if "added_tokens_decoder" not in config:
        entries.update({name: token for name, token in older.items() if token is not None})
    texts = {name: _text(token) for name, token in entries.items() if name.endswith("_token")}
    for source in (config, older):
        if isinstance(named := source.get("extra_special_tokens"), Mapping):
            texts |= {name: _text(token) for name, token in named.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _text(token: object) -> str | None:
    """The text of a token, which the files hold as a string or inside an object."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
