"""RecordedConfiguration: a config.json that knows which of its keys a family has read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from drupe_checkpoints import Configuration
from drupe_checkpoints.configuration import DEFAULT_ROPE_THETA


@dataclass(frozen=True)
class RecordedConfiguration(Configuration):
    """keys_read, rope_keys_read: what was read of config.json, and of the parameters of its rotary embedding."""

    keys_read: set[str] = field(default_factory=set)
    rope_keys_read: set[str] = field(default_factory=set)

    def __getitem__(self, key: str) -> Any:
        self.keys_read.add(key)
        return super().__getitem__(key)

    def rope(self, partial: float = 1.0, theta: float = DEFAULT_ROPE_THETA) -> Configuration:
        found = super().rope(partial, theta)
        return RecordedConfiguration(found.path, found.entries, self.rope_keys_read)
