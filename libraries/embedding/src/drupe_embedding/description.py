"""EmbeddingDescription: in a graph's metadata, how it makes embeddings and what a session of it needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from drupe.api import Record, asdict, field
from drupe_onnx.metadata_records import record_from

if TYPE_CHECKING:
    from drupe_onnx import ir

SENTENCE_EMBEDDING = "sentence_embedding"
"""The output that holds one embedding for each text."""
DESCRIPTION_KEY = "drupe.embedding"
"""The key of a graph's metadata that holds the description, as JSON."""


class EmbeddingDescription(Record):
    """How a graph with the inputs input_ids and attention_mask makes embeddings.

    modes: how hidden states are pooled, by sentence-transformers' names; several are joined. Without one the graph
    gives last_hidden_state only. normalized: whether embeddings have the length 1. max_length: the most tokens of a
    text; None where it is not known. prompts: texts to put before a text, by name; default_prompt: the name of the one
    that is put before a text where none is chosen.
    """

    modes: tuple[str, ...] = ()
    normalized: bool = False
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def describe_embedding(model: ir.Model, description: EmbeddingDescription) -> None:
    """Put the description into a model's metadata."""
    model.metadata_props[DESCRIPTION_KEY] = json.dumps(asdict(description))


def description_of(model: ir.Model) -> EmbeddingDescription | None:
    """The description in a model's metadata; None where there is none. Raises ModelError for a broken one."""
    text = model.metadata_props.get(DESCRIPTION_KEY)
    return None if text is None else description_from(text)


def description_from(text: str) -> EmbeddingDescription:
    """The description in a graph's metadata; keys that a later version has added are ignored."""
    return record_from(text, EmbeddingDescription, f"its embeddings ({DESCRIPTION_KEY})")
