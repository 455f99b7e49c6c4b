"""CONVERSATIONS: conversations that tell apart engines which render chat templates differently."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from drupe.api import Record


class Conversation(Record):
    """Messages, and tools if there are any, as a script gives them to a chat template.

    name: what is particular about it. add_generation_prompt: whether an answer is to follow.
    """

    name: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True


@functools.cache
def conversations() -> tuple[Conversation, ...]:
    """The conversations in conversations.json."""
    text = (resources.files(__package__) / "conversations.json").read_text("utf-8")
    document = json.loads(text)
    tools = document["tools"]
    return tuple(
        Conversation(**{**entry, "tools": [tools[name] for name in entry.get("tools", ())] or None})
        for entry in document["conversations"]
    )
