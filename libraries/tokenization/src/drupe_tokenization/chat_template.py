"""Chat templates: making a prompt from a conversation with a model's own template, as transformers does."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, RuntimeMissing
from drupe_decoding import Message, Turn
from drupe_tokenization.template_files import templates_in_folder

if TYPE_CHECKING:
    import jinja2

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys under which a turn may hold its reasoning; templates read the first two."""
_TO_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "


class TemplateRefusal(ModelError):
    """A chat template that refuses a conversation with `raise_exception`."""


def apply_chat_template(
    folder: Path, messages: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
) -> str:
    """The prompt that the folder's chat template makes, ready for the assistant's answer; see `render`.

    Raises ModelError where there is no template, TemplateRefusal where it refuses the conversation.
    """
    templates = templates_in_folder(folder)
    conversation = [message.document() if isinstance(message, Message) else message for message in messages]
    return render(templates.text(bool(tools)), conversation, tools, {**templates.tokens, **settings})


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    settings: Mapping[str, Any],
) -> str:
    """What `apply_chat_template` of transformers 5 gives for these messages.

    settings: the special tokens by name, and what else the template reads, such as `documents`. The prompt ends with
    the beginning of an answer unless `add_generation_prompt` is false; with `continue_final_message` it ends with the
    last message. Raises ModelError for a template that fails, TemplateRefusal for one that refuses the conversation.
    """
    variables = {"documents": None, **plain(settings), "tools": plain(tools)}
    continue_final_message = variables.pop("continue_final_message", False)
    variables.setdefault("add_generation_prompt", not continue_final_message)
    turns = [_turn(message) for message in messages]
    if continue_final_message:
        _mark_end(turns)
    try:
        text = compiled(template).render({**variables, "messages": turns})
    except ModelError:
        raise
    except Exception as error:  # a template is a program that comes with the model, so it can fail in any way
        raise ModelError(
            f"the model's chat template cannot be used: {_reason(error)}",
            cure="leave out what it cannot take, correct the file that holds it, or continue texts with drupe generate",
        ) from error
    return _continued(text) if continue_final_message else text


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without the keys that hold nothing, and with its reasoning under each name that templates read."""
    turn: dict[str, Any] = {key: plain(value) for key, value in message.items() if value is not None}
    reasoning = next((turn[key] for key in REASONING if key in turn), None)
    return turn if reasoning is None else {"thinking": reasoning, **turn, "reasoning_content": reasoning}


def _mark_end(turns: list[dict[str, Any]]) -> None:
    """Put a mark behind the text of the last message, of several parts behind the last text."""
    content = turns[-1].get("content") if turns else None
    texts = [part for part in content if isinstance(part, dict) and "text" in part] if isinstance(content, list) else []
    if isinstance(content, str):
        turns[-1]["content"] += _TO_CONTINUE
    elif texts:
        texts[-1]["text"] += _TO_CONTINUE
    else:
        raise ModelError("there is no text at the end of the conversation that could be continued")


def _continued(text: str) -> str:
    """The prompt up to the end of the last message."""
    end = text.rfind(_TO_CONTINUE.strip())
    if end < 0:
        raise ModelError("the model's chat template leaves out the last message, so it cannot be continued")
    return text[:end] if text[end:].startswith(_TO_CONTINUE) else text[:end].rstrip()


def plain(value: Any) -> Any:
    """The value as JSON has it. Templates see nothing else, because their sandbox does not know other objects."""
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"<{type(value).__name__}>"


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """The template, ready to render. Raises ModelError for one that is not jinja."""
    import jinja2

    try:
        return environment().from_string(template)
    except jinja2.TemplateError as error:
        raise ModelError(
            f"the model's chat template is not valid: {_reason(error)}",
            cure="correct the file that holds it, or download it again",
        ) from error
    except RecursionError as error:
        raise ModelError("the model's chat template is nested too deeply") from error


@functools.cache
def environment() -> jinja2.Environment:
    """jinja2 as transformers sets it up. The sandbox is there because the template comes with the model."""
    try:
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as error:
        raise RuntimeMissing(f"chat templates need jinja2: {error}", cure="pip install jinja2") from error
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), jinja2.ext.loopcontrols], optimized=False
    )  # the optimizer changes no result, and takes longer than it saves in one rendering
    made.filters["tojson"] = _to_json
    made.globals |= {"raise_exception": _raise_exception, "strftime_now": _now, "namespace": _namespace()}
    made.globals["dict"] = lambda *arguments, **named: dict(*arguments, **named)
    return made


def _generation_tag() -> type[jinja2.ext.Extension]:
    """The block `{% generation %}`, which marks what the model is trained to write; it renders as its content."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("content"), [], [], body).set_lineno(line)

        def content(self, caller: Any) -> Any:
            return caller()

    return GenerationTag


def _namespace() -> type[jinja2.utils.Namespace]:
    """jinja2's namespace without names that begin with an underscore."""
    import jinja2

    class Namespace(jinja2.utils.Namespace):
        def __init__(*arguments: Any, **named: Any) -> None:
            self, *given = arguments
            values = dict(*given, **named)
            for name in values:
                _refuse_private(name)
            jinja2.utils.Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            _refuse_private(name)
            super().__setitem__(name, value)

    return Namespace


def _refuse_private(name: object) -> None:
    import jinja2

    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}: the name begins with an underscore")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` of transformers: jinja's own escapes characters that are special in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(
        f"the model's chat template refuses the conversation: {message}",
        cure="change the conversation as it says",
    )


def _reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    line = getattr(error, "lineno", None)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{text} (line {line})" if line else text
