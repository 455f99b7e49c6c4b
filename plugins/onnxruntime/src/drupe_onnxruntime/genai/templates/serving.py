"""serving: the chat templates of a package, where transformers and onnxruntime-genai look for them.

transformers reads `chat_template.jinja`, onnxruntime-genai the key `chat_template` of tokenizer_config.json, as one
text. So the file holds the checkpoint's template, and the key one that onnxruntime-genai's own engine reads as meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Notice
from drupe_tokenization import DEFAULT, FOR_TOOLS, TEMPLATE, ChatTemplates, chat_templates, file_of, object_in

CONFIG = "tokenizer_config.json"


@dataclass
class Served:
    """The files that change, and what a user should know of them."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)


def served_templates(files: Mapping[str, Path | bytes]) -> Served:
    """What has to change in a package's files, so that both find the right template.

    A template that works nowhere is no reason to refuse a model: that is a notice.
    """
    before = object_in(files, CONFIG)
    config = {key: value for key, value in before.items() if key != "chat_template"}
    served = Served()
    try:
        templates = chat_templates(files)
    except ModelError as error:
        served.notices.append(_no_template(error))
    else:
        served.notices += templates.notices
        _serve(templates, files, before, config, served)
    if config != before:
        served.files[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    return served


def _serve(
    templates: ChatTemplates,
    files: Mapping[str, Path | bytes],
    before: Mapping[str, Any],
    config: dict[str, Any],
    served: Served,
) -> None:
    """Put the default template into the configuration where onnxruntime-genai needs it there, and all into files."""
    text = templates.texts.get(DEFAULT)
    if text is not None and not text.strip():
        if "chat_template" in before:
            config["chat_template"] = before["chat_template"]  # it is empty: nothing to compare, and a notice says it
    elif text is not None:
        from drupe_onnxruntime.genai.templates.choosing import choose

        chosen, notices = choose(text, templates.tokens, tools=FOR_TOOLS not in templates.texts)
        served.notices += notices
        if chosen != text or "chat_template" in before or not _is_file(text, files):
            config["chat_template"] = chosen  # otherwise onnxruntime-genai reads the file
        if FOR_TOOLS in templates.texts:
            served.notices.append(_template_for_tools())
    elif templates.texts:
        served.notices.append(_no_default(templates.texts))
    if config.get("chat_template") != before.get("chat_template") or set(templates.texts) != {DEFAULT}:
        served.files |= _own_files(templates.texts, files)


def _is_file(text: str, files: Mapping[str, Path | bytes]) -> bool:
    """Whether the template's own file holds this text, also with these line ends."""
    content = files.get(TEMPLATE)
    return (content.read_bytes() if isinstance(content, Path) else content) == text.encode("utf-8")


def _own_files(texts: Mapping[str, str], files: Mapping[str, Path | bytes]) -> dict[str, bytes]:
    """The files in which transformers looks for templates of these names, where they are missing."""
    named = {file_of(name): text for name, text in texts.items()}
    return {name: text.encode("utf-8") for name, text in named.items() if name and name not in files}


def _template_for_tools() -> Notice:
    return Notice(
        "chat template", "served by Drupe only",
        "the model has a template of its own for conversations with tools; onnxruntime-genai takes the default one",
        f"in a script, give the text of {file_of(FOR_TOOLS)} as template_str where there are tools",
    )  # fmt: skip


def _no_default(names: Iterable[str]) -> Notice:
    return Notice(
        "chat template", "left out",
        f"none is named '{DEFAULT}' ({', '.join(sorted(names))}); chats would not know which one to use, as in "
        "transformers",
        f"write the one to use into the file {TEMPLATE} and optimize again",
    )  # fmt: skip


def _no_template(error: ModelError) -> Notice:
    return Notice("chat template", "left out", error.what, error.cure or "")
