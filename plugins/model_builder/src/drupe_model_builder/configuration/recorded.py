"""RecordedConfiguration: a config.json that knows which of its keys a family has read."""

from __future__ import annotations

from typing import Any

from drupe.api import field
from drupe_checkpoints import Configuration
from drupe_checkpoints.configuration import DEFAULT_ROPE_THETA

ROPE_KEYS = (
    "original_max_position_embeddings", "partial_rotary_factor", "rope_parameters", "rope_scaling", "rope_theta",
)  # fmt: skip
"""The keys of config.json that the parameters of a rotary embedding come from."""


class RecordedConfiguration(Configuration):
    """keys_read, rope_keys_read: what was read of config.json, and of the parameters of its rotary embedding."""

    keys_read: set[str] = field(default_factory=set)
    rope_keys_read: set[str] = field(default_factory=set)

    def __getitem__(self, key: str) -> Any:
        self.keys_read.add(key)
        return super().__getitem__(key)

    def rope(self, partial: float = 1.0, theta: float = DEFAULT_ROPE_THETA) -> Configuration:
        # Reading them looks at the types of layers, too, which does not mean that the family minds these.
        found = Configuration(self.path, self.entries, spelt=self.spelt).rope(partial, theta)
        self.keys_read.update(ROPE_KEYS)
        return RecordedConfiguration(found.path, found.entries, self.spelt, keys_read=self.rope_keys_read)
