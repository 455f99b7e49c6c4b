"""Generation, Message, Timing: the settings of text generation, and how fast a text comes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from drupe.api import Record, UsageError, field


class Generation(Record):
    """How to generate.

    max_new_tokens: at most this many. temperature: 0 takes the likeliest token. top_p, top_k: the tokens to sample
    from (top_k 0: all). seed: makes a sampled text repeatable. validate: raise CheckFailed for a logit that is NaN or
    infinite.
    Raises UsageError for a value out of its range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    validate: bool = False

    def __post_init__(self) -> None:
        for name, holds, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0 (0 for all tokens)"),
        ):
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {wanted}")


class Message(Record):
    """One turn of a conversation.

    role: "system", "user", "assistant", "tool", or another that the model's chat template knows. content: a text, or
    the parts of one ({"type": "text", "text": ...}); None for a turn that only calls tools. fields: what else chat
    templates read, in the words of transformers: {"tool_calls": [...]}, {"reasoning_content": "..."}, {"name": "..."}.
    """

    role: str
    content: str | Sequence[Mapping[str, Any]] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The turn as chat templates read it."""
        return {"role": self.role, "content": self.content, **self.fields}


Turn: TypeAlias = Message | Mapping[str, Any]
"""A turn of a conversation; a mapping has the keys of `Message.document`."""


class Timing(Record):
    """How fast the last text came. prompt_seconds: until the first token is there; decode_seconds: for all others."""

    prompt_tokens: int
    new_tokens: int
    prompt_seconds: float
    decode_seconds: float

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """New tokens a second, without the first one."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds and self.new_tokens > 1 else 0.0


class Stopwatch:
    """Times a text. The clock starts when the object is made."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._started = self._first = time.perf_counter()
        self.new_tokens = 0

    def count(self) -> Timing:
        """Count a new token; returns the timing of the text so far."""
        now = time.perf_counter()
        self.new_tokens += 1
        if self.new_tokens == 1:
            self._first = now
        return Timing(self._prompt_tokens, self.new_tokens, self._first - self._started, now - self._first)
