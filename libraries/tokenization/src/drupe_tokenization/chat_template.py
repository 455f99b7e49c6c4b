"""Chat templates: making a prompt from a conversation with a model's own template, as transformers does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from drupe.api import ModelError, RuntimeMissing
from drupe_decoding import Message
from drupe_tokenization.json_files import read_object

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def apply_chat_template(folder: Path, messages: Sequence[Message]) -> str:
    """The prompt that the folder's chat template makes, ready for the assistant's answer.

    The template runs in jinja's sandbox, because it comes with the model. Raises ModelError where no template works.
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
    """The model's template, from its own file or from tokenizer_config.json; of several, the default one."""
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
    """The text of a special token, which tokenizer_config.json holds as a string or inside an object."""
    return token.get("content") if isinstance(token, dict) else token


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """The filter `tojson` of transformers: jinja's own escapes characters that are special in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)
