"""ChatTemplates: a model's chat templates, found in every place where they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from drupe.api import ModelError, Notice, Record
from drupe_tokenization.json_files import object_in
from drupe_tokenization.token_texts import special_tokens

TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
DEFAULT = "default"
FOR_TOOLS = "tool_use"
PROCESSOR_FILES = ("chat_template.json", "processor_config.json", "preprocessor_config.json")
FORMER_FOLDER = "chat_templates"
_FILE_NAME = re.compile(r"\w[\w.-]*")


class ChatTemplates(Record):
    """The templates by name; most models have only the one named "default".

    places: for each template the file that holds it. tokens: the special tokens that templates use by name. notices:
    what a user should know of them, for example that two files differ.
    """

    texts: Mapping[str, str]
    places: Mapping[str, str]
    tokens: Mapping[str, str]
    notices: tuple[Notice, ...] = ()

    def text(self, tools: bool) -> str:
        """The template for a conversation with or without tools. Raises ModelError where there is none."""
        name = FOR_TOOLS if tools and FOR_TOOLS in self.texts else DEFAULT
        if name in self.texts:
            if not self.texts[name].strip():
                raise ModelError(
                    f"the chat template in {self.places[name]} is empty: every conversation would be an empty prompt",
                    cure="drupe generate continues texts; for conversations, write a template into "
                    f"{file_of(name) or TEMPLATE}",
                )
            return self.texts[name]
        if not self.texts:
            raise ModelError(
                "the model has no chat template: it continues text, and was not made for conversations",
                cure="drupe generate",
            )
        names = ", ".join(sorted(self.texts))
        raise ModelError(
            f"the model has no chat template that is named {DEFAULT!r}, but only {names}",
            cure=f"write the one to use into the file {TEMPLATE}",
        )


def templates_in_folder(folder: Path) -> ChatTemplates:
    """The templates of a folder. Raises ModelError for a file that cannot be read."""
    names = [TEMPLATE, CONFIG, SPECIAL_TOKENS, *PROCESSOR_FILES]
    paths = [folder / name for name in names if (folder / name).is_file()]
    paths += [path for inner in (MORE_TEMPLATES, FORMER_FOLDER) for path in sorted(folder.glob(f"{inner}/*.jinja"))]
    return chat_templates({path.relative_to(folder).as_posix(): path for path in paths})


def chat_templates(files: Mapping[str, Path | bytes]) -> ChatTemplates:
    """The templates in files, by the files' names. Of several places the one that transformers 5 prefers wins.

    transformers' tokenizers read `chat_template.jinja` with `additional_chat_templates/`, then tokenizer_config.json,
    and special_tokens_map.json where the former lists no tokens. What only processors or other versions read comes
    after that: chat_template.json, the processor's configuration, `chat_templates/`. Raises ModelError for a file that
    cannot be read.
    """
    config = object_in(files, CONFIG)
    tokens = special_tokens(config, object_in(files, SPECIAL_TOKENS))
    places = [(place, texts) for place, texts in _places(files, config) if texts]
    if not places:
        return ChatTemplates({}, {}, tokens)
    chosen, texts = places[0]
    where = dict.fromkeys(texts, chosen)
    for place, others in places[1:]:
        if DEFAULT not in texts and DEFAULT in others:
            texts, where = {**texts, DEFAULT: others[DEFAULT]}, {**where, DEFAULT: place}
    notices = [_empty(name, where[name]) for name in texts if not texts[name].strip()]
    notices += [
        _difference(where[DEFAULT], place)
        for place, others in places
        if DEFAULT in others and DEFAULT in texts and place != where[DEFAULT] and not _same(texts, others)
    ]
    if where.get(DEFAULT, chosen) not in (TEMPLATE, CONFIG, SPECIAL_TOKENS):
        notices.append(_unusual(where.get(DEFAULT, chosen)))
    return ChatTemplates(texts, where, tokens, tuple(notices))


def _places(files: Mapping[str, Path | bytes], config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where templates may be, in order of preference, with the templates there by name."""
    own = {DEFAULT: text_in(files, TEMPLATE)} if TEMPLATE in files else {}
    yield TEMPLATE, own | _in_folder(files, MORE_TEMPLATES)
    yield CONFIG, _in_json(config, CONFIG)
    if "added_tokens_decoder" not in config:  # transformers reads the older file only without that key
        yield SPECIAL_TOKENS, _in_json(object_in(files, SPECIAL_TOKENS), SPECIAL_TOKENS)
    for name in PROCESSOR_FILES:
        yield name, _in_json(object_in(files, name), name)
    yield FORMER_FOLDER, _in_folder(files, FORMER_FOLDER)


def _in_folder(files: Mapping[str, Path | bytes], folder: str) -> dict[str, str]:
    paths = [PurePosixPath(name) for name in sorted(files)]
    return {
        path.stem: text_in(files, str(path))
        for path in paths
        if path.parent == PurePosixPath(folder) and path.suffix == ".jinja"
    }


def _in_json(config: Mapping[str, Any], name: str) -> dict[str, str]:
    """The templates under the key `chat_template`: one text, a list of named texts, or an object of texts."""
    entry = config.get("chat_template")
    if entry is None:
        return {}
    if isinstance(entry, str):
        return {DEFAULT: entry}
    named = entry
    if isinstance(entry, list):
        named = {each.get("name"): each.get("template") for each in entry if isinstance(each, dict)}
    if isinstance(named, dict) and all(isinstance(text, str) for pair in named.items() for text in pair):
        return named
    raise ModelError(
        f"{name}: chat_template is neither a text nor a list of texts with names",
        cure=f"write the template into the file {TEMPLATE}, and remove the key",
    )


def file_of(name: str) -> str | None:
    """The file in which transformers 5 keeps the template of this name; None for a name that no file can have."""
    if name == DEFAULT:
        return TEMPLATE
    return f"{MORE_TEMPLATES}/{name}.jinja" if _FILE_NAME.fullmatch(name) else None


def text_in(files: Mapping[str, Path | bytes], name: str) -> str:
    """The text of a file, with line ends as Python reads them. Raises ModelError where it is not UTF-8."""
    content = files[name]
    try:
        text = (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is not UTF-8: {error}", where=name) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _same(texts: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether the default templates are the same; jinja drops a newline at the end, and knows one kind of line end."""
    return _lines(texts[DEFAULT]) == _lines(others[DEFAULT])


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").removesuffix("\n")


def _difference(chosen: str, other: str) -> Notice:
    return Notice(
        "chat template", "chosen",
        f"{chosen} and {other} hold different chat templates; that of {chosen} is used, as in transformers 5",
        f"if the other is the right one, write it into {TEMPLATE}",
    )  # fmt: skip


def _empty(name: str, place: str) -> Notice:
    called = "" if name == DEFAULT else f" named {name!r}"
    return Notice(
        "chat template", "has no effect",
        f"the chat template{called} in {place} is empty: transformers makes an empty prompt of every conversation, and "
        "drupe chat refuses it",
        f"`drupe generate` continues texts; for conversations, write a template into {file_of(name) or TEMPLATE}",
    )  # fmt: skip


def _unusual(place: str) -> Notice:
    return Notice(
        "chat template", "chosen",
        f"the only chat template is that of {place}, which transformers' tokenizers do not read; it is used",
    )  # fmt: skip
