"""Text to tokens and back with tokenizer.json, and chat templates, as transformers does both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from drupe.api import Message, ModelError, RuntimeMissing
from drupe_runtime_ort.settings import read_object

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """The tokenizer of a model's folder. Raises ModelError where there is none that can be read."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                "the model has no tokenizer.json, so it takes and gives tokens only",
                where=folder,
                cure="copy tokenizer.json from the checkpoint it was made of",
            )
        try:
            import tokenizers
        except ImportError as error:
            raise RuntimeMissing(
                f"reading tokenizer.json needs tokenizers: {error}", cure="pip install tokenizers"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more special
            raise ModelError(f"tokenizer.json cannot be read: {error}", where=path) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        """The text's tokens, with the beginning of sequence where the tokenizer puts one before a text.

        A text that a chat template made begins with that token already; it is not put there twice. Nothing is put
        behind a text that is to be continued.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")
        plain: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        special: list[int] = self._tokenizer.encode(text, add_special_tokens=True).ids
        for start in range(len(special) - len(plain) + 1 if plain else 0):
            if special[start : start + len(plain)] == plain:
                return plain if plain[:start] == special[:start] else special[:start] + plain
        return special

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


class TextStream:
    """Text out of one token after another: a character of several tokens comes in one piece.

    Each piece is decoded behind what comes before it, first the end of the prompt: some tokenizers drop the space that
    a text begins with, and what continues a prompt is no beginning.
    """

    CONTEXT = 8
    """Tokens of the prompt that are decoded with the first piece."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt[-self.CONTEXT :])
        self._start = 0
        self._given = len(self._tokens)

    def add(self, token: int) -> str:
        """The text that is whole with this token; "" while a character is not."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._start : self._given])
        text = self._tokenizer.decode(self._tokens[self._start :])
        if text.endswith("\ufffd") or len(text) <= len(before):
            return ""
        self._start, self._given = self._given, len(self._tokens)
        return text[len(before) :]


def apply_chat_template(folder: Path, messages: Sequence[Message]) -> str:
    """The prompt that the folder's chat template makes, ready for the assistant's answer.

    The template is run in jinja's sandbox: it comes with the model. Raises ModelError where there is none that works.
    """
    config = read_object(folder / "tokenizer_config.json")
    template = chat_template(folder, config)
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as error:
        raise RuntimeMissing(f"chat templates need jinja2: {error}", cure="pip install jinja2") from error
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    tokens = {key: _content(config[key]) for key in SPECIAL_TOKENS if config.get(key) is not None}
    try:
        return environment.from_string(template).render(
            messages=[asdict(message) for message in messages], add_generation_prompt=True, **tokens
        )
    except jinja2.TemplateError as error:
        raise ModelError(f"the model's chat template cannot be used: {error}", where=folder) from error


def chat_template(folder: Path, config: dict[str, Any]) -> str:
    """The model's template: a file of its own, or a key of tokenizer_config.json; of several the default one."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template") or read_object(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    if not isinstance(template, str):
        raise ModelError(
            "the model has no chat template: it continues text, and was not made for conversations",
            where=folder,
            cure="drupe generate",
        )
    return template


def _content(token: Any) -> Any:
    """A special token's text: tokenizer_config.json has it plain or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """As in transformers: jinja's own filter escapes characters that are special in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)
