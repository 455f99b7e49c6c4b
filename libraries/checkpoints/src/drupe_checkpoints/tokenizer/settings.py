"""The small files beside a tokenizer: tokenizer_config.json, special_tokens_map.json and added_tokens.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Record, field
from drupe_files import object_of

TOKENIZER = "tokenizer.json"
CONFIG, SPECIAL_TOKENS, ADDED_TOKENS = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FETCH_AGAIN = "download the tokenizer's files again, or save them with transformers"


class Settings(Record):
    """What the small files say.

    config: tokenizer_config.json. special: special_tokens_map.json. added: added_tokens.json, text to id; None where
    the file is missing. model_type: of config.json. model_class: the tokenizer's class in config.json, mostly empty.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    special: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, int] | None = None
    model_type: str = ""
    model_class: str = ""

    @classmethod
    def read(cls, folder: Path, model: Mapping[str, Any]) -> Settings:
        """The settings of the tokenizer in `folder`. model: the content of config.json. Raises ModelError."""
        added = read_object(folder / ADDED_TOKENS)
        wrong = next((text for text, number in (added or {}).items() if not is_id(number)), None)
        if wrong is not None:
            raise ModelError(
                f"{ADDED_TOKENS} gives no id for the token {wrong!r}", where=folder / ADDED_TOKENS, cure=FETCH_AGAIN
            )
        return cls(
            folder,
            read_object(folder / CONFIG) or {},
            read_object(folder / SPECIAL_TOKENS) or {},
            added,
            _text(model.get("model_type")),
            _text(model.get("tokenizer_class")),
        )

    @property
    def declared_class(self) -> str:
        """The class that the files name, without "Fast"; empty where they name none."""
        return (_text(self.config.get("tokenizer_class")) or self.model_class).removesuffix("Fast")

    def says(self, key: str, default: bool) -> bool:
        """A switch of tokenizer_config.json; the default where the key is missing or null."""
        value = self.config.get(key)
        return default if value is None else bool(value)

    def named(self, key: str) -> str | None:
        """A token such as bos_token. transformers reads special_tokens_map.json only without added_tokens_decoder."""
        older = self.special.get(key) if "added_tokens_decoder" not in self.config else None
        return content_of(self.config.get(key) if older is None else older)


def content_of(token: Any) -> str | None:
    """The text of a token, which is kept as a text or as an object; None where it is neither."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) and text else None


def is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where the file is missing. Raises ModelError."""
    return object_of(path, path.name, FETCH_AGAIN) if path.is_file() else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
