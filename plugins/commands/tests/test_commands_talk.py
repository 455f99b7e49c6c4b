"""Conversations of `drupe chat`: what the model is given, interrupted answers, commands, and how they end."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from drupe.api import UsageError
from drupe_commands.chat import FORGOTTEN, HINT, Talk, template_settings
from drupe_decoding import Generation, Message, NoRoom, TextSession

SYSTEM = Message("system", "Be short.")


class Parrot(TextSession):
    """Repeats the last message, a word at a time. The words "stop" and "fail" interrupt an answer or fail."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []
        self.settings: dict[str, Any] = {}

    def conversation(self, messages: Sequence[Message], tools: Any = None, **settings: Any) -> str:
        self.settings = settings
        self.prompts.append([f"{message.role}: {message.content}" for message in messages])
        return messages[-1].content

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        if len(self.prompts[-1]) > 4:
            raise NoRoom("the prompt is too long")
        return self._answer(prompt)

    def _answer(self, prompt: str) -> Iterator[str]:
        for word in prompt.split():
            if word == "stop":
                raise KeyboardInterrupt
            if word == "fail":
                raise UsageError("no room", cure="say less")
            yield f"{word}!"

    def close(self) -> None:
        pass


def talk(monkeypatch: pytest.MonkeyPatch, lines: Sequence[str | type[BaseException]], at_terminal: bool) -> Parrot:
    """Have a conversation with these lines. An exception stands for the key that raises it."""
    waiting = iter([*lines, EOFError])

    def answer(prompt: str) -> str:
        assert prompt == ("> " if at_terminal else "")
        line = next(waiting)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(builtins, "input", answer)
    session = Parrot()
    Talk(session, Generation(), [SYSTEM], at_terminal).run()
    return session


def test_the_model_gets_the_whole_conversation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    session = talk(monkeypatch, ["one two", "", "three", "/exit", "never"], at_terminal=True)
    assert capsys.readouterr().out == "one!two!\nthree!\n"
    assert session.prompts[-1] == ["system: Be short.", "user: one two", "assistant: one!two!", "user: three"]


@pytest.mark.parametrize("at_terminal", [True, False])
def test_a_conversation_that_outgrows_the_context_goes_on_without_its_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, at_terminal: bool
) -> None:
    session = talk(monkeypatch, ["one", "two", "three"], at_terminal)
    assert session.prompts[-1] == ["system: Be short.", "user: two", "assistant: two!", "user: three"]
    assert FORGOTTEN in capsys.readouterr().err


def test_reset_forgets_everything_but_the_system_message(monkeypatch: pytest.MonkeyPatch) -> None:
    session = talk(monkeypatch, ["one", "/reset", "two"], at_terminal=True)
    assert session.prompts[-1] == ["system: Be short.", "user: two"]


def test_an_interrupted_answer_keeps_the_words_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    session = talk(monkeypatch, ["one stop two", KeyboardInterrupt, "three"], at_terminal=True)
    assert capsys.readouterr().out == "one!\n\nthree!\n\n"
    assert session.prompts[-1][1:] == ["user: one stop two", "assistant: one!", "user: three"]


def test_a_message_that_caused_an_error_is_not_kept_in_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    session = talk(monkeypatch, ["one", "fail", "/help", "two"], at_terminal=True)
    assert session.prompts[-1][1:] == ["user: one", "assistant: one!", "user: two"]
    assert capsys.readouterr().err == f"{HINT}\nerror: no room\n  try: say less\nthere is no /help. {HINT}\n"


def test_from_a_pipe_only_answers_are_printed_and_an_error_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    talk(monkeypatch, ["one", "/usr is a folder"], at_terminal=False)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("one!\n/usr!is!a!folder!\n", "")
    with pytest.raises(UsageError, match="no room"):
        talk(monkeypatch, ["fail"], at_terminal=False)
    with pytest.raises(KeyboardInterrupt):
        talk(monkeypatch, ["stop"], at_terminal=False)


def test_what_the_template_reads_reaches_it() -> None:
    session = Parrot()
    talk = Talk(session, Generation(), [], at_terminal=False, settings=template_settings('{"enable_thinking": false}'))
    talk.say("Hello")
    assert session.settings == {"enable_thinking": False}


@pytest.mark.parametrize("text", ["[1]", "{", '{"messages": []}'])
def test_settings_of_a_template_that_are_no_settings_are_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="--chat-template-kwargs is not"):
        template_settings(text)
