"""special_tokens: the texts of a tokenizer's named special tokens, which chat templates use by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def special_tokens(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    """The texts by name, as transformers 5 reads them.

    config: the object in tokenizer_config.json; older: that in special_tokens_map.json, which counts only where the
    configuration does not list the added tokens. A model's own names, such as `image_token`, are included.
    """
    entries: dict[str, Any] = dict(config)
    if "added_tokens_decoder" not in config:
        entries.update({name: token for name, token in older.items() if token is not None})
    for source in (config, older):
        if isinstance(named := source.get("extra_special_tokens"), Mapping):
            entries.update(named)
    texts = {name: _text(token) for name, token in entries.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text is not None}


def _text(token: object) -> str | None:
    """The text of a token, which the files hold as a string or inside an object."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
