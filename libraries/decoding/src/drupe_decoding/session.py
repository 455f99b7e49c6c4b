"""TextSession: an open model that writes text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from drupe.api import RuntimeMissing, Session
from drupe_decoding.generation import Generation, Message, Timing


class TextSession(Session):
    """A session of a model whose task is text-generation.

    A runtime's session subclasses it, and keeps `timing` up to date while a text comes.
    """

    timing: Timing | None = None
    """Of the text that `stream` or `generate` gave last."""
    max_length: int | None = None
    """How many tokens there is room for, prompt and answer together; None where there is no limit."""
    context_length: int | None = None
    """The model's context length, which is the largest possible `max_length`; None where it is not known."""

    @abstractmethod
    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`; yields text as it comes, without the prompt.

        The prompt is checked before the first text is asked for. Raises UsageError for an empty prompt, NoRoom for one
        that leaves no room for an answer.
        """

    def generate(self, prompt: str, generation: Generation | None = None, **options: Any) -> str:
        """Continue `prompt`; the text without the prompt. options: fields of Generation, one by one."""
        return "".join(self.stream(prompt, replace(generation or Generation(), **options)))

    @abstractmethod
    def conversation(self, messages: Sequence[Message]) -> str:
        """The prompt that the model's chat template makes of `messages`. Raises ModelError where it has no template."""


def text_session(session: Session) -> TextSession:
    """The session, if it writes text. Raises RuntimeMissing for a session that only runs graphs."""
    if not isinstance(session, TextSession):
        raise RuntimeMissing(
            f"{type(session).__name__} does not generate text: it only runs the model's graphs",
            cure="open a model whose task is text-generation, or open it with another runtime",
        )
    return session
