"""The settings for running a model, from the files of its folder: end tokens, room for tokens, session options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Record, field, replace
from drupe_decoding import CacheSizes, GenerationRules
from drupe_onnx import session_options
from drupe_tokenization import read_object

DESCRIPTION = "drupe.decoder"
"""The key of the graph's metadata under which a decoder built by Drupe describes itself."""


class ModelSettings(Record):
    """ends: tokens that end an answer. max_length: room for prompt and answer. session: the session options.

    cache_sizes: for graphs whose caches have open sizes. generation: the content of generation_config.json.
    """

    ends: frozenset[int] = frozenset()
    max_length: int | None = None
    context_length: int | None = None
    session: Mapping[str, Any] = field(default_factory=dict)
    cache_sizes: CacheSizes = field(default_factory=CacheSizes)
    generation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threads(self) -> int | None:
        """How many threads the package asks for; None where it does not."""
        return self.session.get("intra_op_num_threads")

    @property
    def rules(self) -> GenerationRules:
        """The rules for choosing tokens. Raises ModelError for a generation_config.json that cannot be understood."""
        return GenerationRules.read(self.generation, sorted(self.ends))

    def with_metadata(self, session: Any) -> ModelSettings:
        """These settings, with missing ones filled in from the graph's metadata."""
        text = session.get_modelmeta().custom_metadata_map.get(DESCRIPTION)
        if text is None:
            return self
        description = json.loads(text)
        return replace(
            self,
            ends=self.ends or _tokens(description.get("eos")),
            context_length=self.context_length or description.get("context_length"),
            cache_sizes=CacheSizes(
                self.cache_sizes.heads or description.get("kv_heads"),
                self.cache_sizes.head_size or description.get("head_dim"),
            ),
        )


def read_settings(folder: Path) -> ModelSettings:
    """The settings in genai_config.json, generation_config.json and session_options.json, if these files exist."""
    genai = read_object(folder / "genai_config.json")
    model = genai.get("model", {})
    decoder = model.get("decoder", {})
    generation = read_object(folder / "generation_config.json")
    return ModelSettings(
        ends=_tokens(model.get("eos_token_id")) or _tokens(generation.get("eos_token_id")),
        max_length=genai.get("search", {}).get("max_length"),
        context_length=model.get("context_length"),
        session=session_options(folder) if decoder or not genai else {},
        cache_sizes=CacheSizes(decoder.get("num_key_value_heads"), decoder.get("head_size")),
        generation=generation,
    )


def _tokens(value: Any) -> frozenset[int]:
    listed = value if isinstance(value, list) else [value]
    return frozenset(token for token in listed if isinstance(token, int))
