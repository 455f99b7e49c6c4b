"""From rows to sequences of tokens, with the tokens that the loss is on. Rows that cannot be used are counted."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from drupe.api import Record, UsageError, counted, nearest
from drupe_checkpoints.wording import listed
from drupe_finetune.rows import TEXT, Row
from drupe_finetune.settings import FinetuneConfig

IGNORED = -100
"""The label of a token that the loss is not on."""
CHATS = ("messages", "conversations", "conversation")
"""The columns that are taken for chat messages where the user names no column."""
ROLES: Mapping[str, str] = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
USUAL_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
"""The roles that a message may have where the chat template does not name it: it may render any role."""
OF_MESSAGES = frozenset({"role", "from", "content", "value"})
CHANGED = "the chat template changes earlier messages, so no answer can be told from the rest"
SHOWN = 5
TOOLS, CALLS = "tools", "tool_calls"
"""The column with what an assistant may call, and the key of a message with what it calls."""
MARK = "\u241e"
"""A character that no text has."""


class BadRow(Exception):
    """Why a row cannot be used."""


@dataclasses.dataclass
class Examples:
    """What the data amounts to. bad: rows that were left out, by place and reason. cut: rows that were too long."""

    sequences: list[dict[str, list[int]]] = dataclasses.field(default_factory=list)
    bad: list[str] = dataclasses.field(default_factory=list)
    rows: int = 0
    cut: int = 0

    def told(self) -> list[str]:
        """What a user should know of the data."""
        said = [f"learning from {counted(self.rows - len(self.bad), 'row')} of {self.rows}"]
        if self.bad:
            said.append(f"{counted(len(self.bad), 'row')} left out: {listed(self.bad, SHOWN)}")
        if self.cut:
            said.append(f"{counted(self.cut, 'row')} longer than --max-length cut")
        return said


def examples_of(rows: Iterable[Row], tokenizer: Any, config: FinetuneConfig) -> Examples:
    """The sequences of a data set. Raises UsageError for unknown columns, and for data without a usable row."""
    form: _Form | None = None
    found = Examples()
    for row in rows:
        found.rows += 1
        try:
            if row.problem:
                raise BadRow(row.problem)
            form = form or _form_of(row, tokenizer, config)
            ids, labels = form.tokens(row.columns)
            if not _is_learned(labels if config.packing else labels[: config.max_length]):
                raise BadRow("no token of it would be learned")
        except BadRow as error:
            found.bad.append(f"{row.where} ({error})")
            continue
        found.cut += len(ids) > config.max_length and not config.packing
        found.sequences.append({"input_ids": ids, "labels": labels})
    if not found.sequences:
        first = f": {listed(found.bad, SHOWN)}" if found.bad else ""
        raise UsageError(
            f"the data has no row to learn from, of {found.rows}{first}",
            where=config.data,
            cure="check the file, and --template, --column or --messages",
        )
    found.sequences = list(_of_length(found.sequences, config))[: config.max_sequences or None]
    return found


def refuse_unknown_columns(rows: Iterable[Row], tokenizer: Any, config: FinetuneConfig) -> None:
    """Raise UsageError where the first row that can be read lacks a column that the settings name."""
    for row in rows:
        if not row.problem:
            _form_of(row, tokenizer, config)
            return


def _of_length(sequences: Sequence[dict[str, list[int]]], config: FinetuneConfig) -> Iterator[dict[str, list[int]]]:
    """Sequences cut to the length; with packing, joined and divided into sequences of that length."""
    most = config.max_length
    if not config.packing:
        yield from ({key: values[:most] for key, values in each.items()} for each in sequences)
        return
    joined = {key: [value for each in sequences for value in each[key]] for key in ("input_ids", "labels")}
    for start in range(0, len(joined["input_ids"]), most):
        piece = {key: values[start : start + most] for key, values in joined.items()}
        if _is_learned(piece["labels"]):
            yield piece


def _is_learned(labels: Sequence[int]) -> bool:
    """Whether the loss is on a token. Nothing predicts the first one, and a batch without any has no loss."""
    return any(label != IGNORED for label in labels[1:])


class _Form(Record):
    """How a row becomes text: by a template of columns, or as a chat."""

    tokenizer: Any
    template: str = ""
    chat: str = ""

    def tokens(self, columns: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        return self._of_chat(columns) if self.chat else self._of_template(columns)

    def _of_template(self, columns: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        parts = [(text, name) for text, name, _, _ in string.Formatter().parse(self.template)]
        values = {name: _text(columns, name) for _, name in parts if name is not None}
        if not any(value.strip() for value in values.values()):
            raise BadRow("its text is empty")
        text = "".join(literal + ("" if name is None else values[name]) for literal, name in parts)
        _refuse_halves(text)
        ids = list(self.tokenizer(text)["input_ids"])
        end = self.tokenizer.eos_token_id
        ids += [end] if end is not None and ids[-1:] != [end] else []
        return ids, list(ids)

    def _of_chat(self, columns: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """The whole chat, with labels for the answers: what the template adds to the chat before each."""
        chat = _Chat(self.tokenizer, _messages(columns.get(self.chat), self.chat), _tools(columns))
        chat.refuse_unknown()
        try:
            whole, spans = chat.rendered(chat.messages), chat.answers()
        except BadRow:
            raise
        except Exception as error:  # the template is a program of the model's, with errors of its own
            raise BadRow(f"the chat template refuses it: {error}") from error
        if not spans:
            raise BadRow("it has no answer of the assistant's")
        _refuse_halves(whole)
        encoded = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = list(encoded["input_ids"]), encoded["offset_mapping"]
        inside = [any(first <= start < last for first, last in spans) for start, _ in places]
        return ids, [each if learned else IGNORED for each, learned in zip(ids, inside, strict=True)]


class _Chat(Record):
    """The messages of a row, as the model's own template shows them. tools: what the assistant may call."""

    tokenizer: Any
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] = ()

    def refuse_unknown(self) -> None:
        """Raise BadRow for what the template would leave out without a word."""
        known = str(self.tokenizer.chat_template)
        for role in (message["role"] for message in self.messages):
            if role not in USUAL_ROLES and role not in known:
                raise BadRow(f"the role '{role}' is none that the chat template knows")
        if self.tools and TOOLS not in known:
            raise BadRow(f"it has '{TOOLS}', for which the chat template has no place")
        if any(CALLS in message for message in self.messages) and CALLS not in known:
            raise BadRow(f"it has '{CALLS}', for which the chat template has no place")

    def answers(self) -> list[tuple[int, int]]:
        """Where each answer of the assistant's begins and ends in the whole chat."""
        whole = self.rendered(self.messages)
        places = [at for at, message in enumerate(self.messages) if message["role"] == "assistant"]
        return [(self._start(at, whole), self._end(at, whole)) for at in places]

    def _start(self, at: int, whole: str) -> int:
        """Where an answer begins: after what the template puts before it, as far as that is part of the chat."""
        for answers in (True, False):
            text = self.rendered(self.messages[:at], answers=answers)
            if whole.startswith(text):
                return len(text)
        raise BadRow(CHANGED)

    def _end(self, at: int, whole: str) -> int:
        """Where an answer ends. A template may show an answer in another way as long as it is the last one.

        Then a mark behind it tells what follows, within the answer and within the chat.
        """
        last = self.rendered(self.messages[: at + 1])
        if whole.startswith(last):
            return len(last)
        marked = list(self.messages)
        marked[at] = {**marked[at], "content": marked[at]["content"] + MARK}
        behind = _common_end(last, self.rendered(marked[: at + 1]))
        following = _common_end(whole, self.rendered(marked))
        if not following.startswith(behind):
            raise BadRow(CHANGED)
        return len(whole) - len(following) + len(behind)

    def rendered(self, messages: Sequence[Mapping[str, Any]], *, answers: bool = False) -> str:
        if not messages:
            return ""
        text: str = self.tokenizer.apply_chat_template(
            list(messages), tools=list(self.tools) or None, tokenize=False, add_generation_prompt=answers
        )
        return text


def _common_end(one: str, other: str) -> str:
    pairs = zip(reversed(one), reversed(other), strict=False)
    count = next((at for at, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))
    return one[len(one) - count :]


def _form_of(row: Row, tokenizer: Any, config: FinetuneConfig) -> _Form:
    """How the rows become text, by the first one. Raises UsageError for columns that it does not have."""
    columns = list(row.columns)
    given = [name for name in ("template", "column", "messages") if getattr(config, name)]
    if len(given) > 1:
        raise UsageError(
            f"--{given[0]} and --{given[1]} both say how a row becomes text", cure=f"leave --{given[1]} out"
        )
    if config.template:
        template = config.template.replace("\\n", "\n").replace("\\t", "\t")
        for name in fields_of(template):
            _refuse_unknown(name, columns, "--template")
        return _Form(tokenizer, template)
    if config.column:
        _refuse_unknown(config.column, columns, "--column")
        return _Form(tokenizer, f"{{{config.column}}}")
    chat = config.messages or next((name for name in CHATS if name in columns), None)
    if chat:
        _refuse_unknown(chat, columns, "--messages")
        if not tokenizer.chat_template:
            raise UsageError(
                "the model has no chat template, so messages have no form", cure="--template with the columns of a row"
            )
        return _Form(tokenizer, chat=chat)
    if columns == [TEXT] or TEXT in columns:
        return _Form(tokenizer, f"{{{TEXT}}}")
    example = columns[0] if columns else "NAME"
    raise UsageError(
        f"nothing says which text of a row is learned; the data has the columns {', '.join(columns)}",
        where=config.data,
        cure=f"--column {example}, or --template '... {{{example}}} ...'",
    )


def fields_of(template: str) -> list[str]:
    """The columns that a template names. Raises UsageError for a template that is none."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"the template is broken: {error}", where=template, cure="write {{ for a brace") from error
    for _, name, form, conversion in parsed:
        if form or conversion:
            raise UsageError(
                f"the template gives {name} a form, which is not applied", where=template, cure=f"write {{{name}}}"
            )
    names = [name for _, name, _, _ in parsed if name is not None]
    if not names or not all(name.isprintable() and name for name in names):
        raise UsageError("the template names no column", where=template, cure="'Question: {question}'")
    return list(dict.fromkeys(names))


def _refuse_unknown(name: str, columns: Sequence[str], flag: str) -> None:
    if name not in columns:
        near = nearest(name, columns)
        raise UsageError(
            f"the data has no column '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""),
            where=flag,
            cure=f"its columns are {', '.join(columns)}",
        )


def _refuse_halves(text: str) -> None:
    """Raise BadRow for half a pair of surrogates, which JSON can hold and a tokenizer does not take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("it holds half a character") from error


def _text(columns: Mapping[str, Any], name: str) -> str:
    value = columns.get(name)
    if value is None:
        raise BadRow(f"it lacks '{name}'")
    if isinstance(value, dict | list):
        raise BadRow(f"'{name}' is no text")
    return str(value)


def _messages(value: Any, name: str) -> list[dict[str, Any]]:
    """Messages with role and content, also in the form of ShareGPT (from, value). Other keys are the template's."""
    messages = _list(value)
    if not messages:
        raise BadRow(f"'{name}' is no list of messages")
    found = []
    for each in messages:
        role = each.get("role", each.get("from")) if isinstance(each, dict) else None
        if not isinstance(role, str):
            raise BadRow("a message lacks its role or content")
        others = {key: kept for key, kept in each.items() if key not in OF_MESSAGES and kept not in (None, [], {})}
        content = _content(each.get("content", each.get("value")), CALLS in others)
        found.append({**others, "role": ROLES.get(role, role), "content": content})
    return found


def _content(value: Any, calls: bool) -> str:
    """The text of a message: as it is, or of parts. calls: whether it calls tools, which need no text beside them."""
    if isinstance(value, list) and all(isinstance(part, dict) and "type" in part for part in value):
        if other := next((part["type"] for part in value if not isinstance(part.get("text"), str)), None):
            raise BadRow(f"a message has a part of the type '{other}', and only text is learned")
        return "".join(part["text"] for part in value)
    if value is None and calls:
        return ""
    if not isinstance(value, str):
        raise BadRow("a message lacks its role or content")
    return value


def _tools(columns: Mapping[str, Any]) -> list[Any]:
    stated = columns.get(TOOLS)
    tools = _list(stated)
    if stated and not tools and stated != "[]":
        raise BadRow(f"'{TOOLS}' is no list")
    return tools


def _list(value: Any) -> list[Any]:
    """A list, or the JSON of one, as tables have it; [] for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return value if isinstance(value, list) else []
