"""What a model's folder says about running it: where answers end, how much room there is, how many threads."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drupe.api import ModelError

DESCRIPTION = "drupe.decoder"
"""The key of the graph's metadata under which a decoder built by Drupe describes itself."""


@dataclass(frozen=True)
class Settings:
    """ends: tokens that end an answer. max_length: room for prompt and answer. threads: that a package asks for.

    head_size: of the caches, for graphs that leave it open.
    """

    ends: frozenset[int] = frozenset()
    max_length: int | None = None
    context_length: int | None = None
    threads: int | None = None
    head_size: int | None = None

    def with_metadata(self, session: Any) -> Settings:
        """Filled up with what the graph's own metadata says."""
        text = session.get_modelmeta().custom_metadata_map.get(DESCRIPTION)
        if text is None:
            return self
        description = json.loads(text)
        return replace(
            self,
            ends=self.ends or _tokens(description.get("eos")),
            context_length=self.context_length or description.get("context_length"),
            head_size=self.head_size or description.get("head_dim"),
        )


def read_settings(folder: Path) -> Settings:
    """From genai_config.json and generation_config.json, as far as they are there."""
    genai = read_object(folder / "genai_config.json")
    model = genai.get("model", {})
    decoder = model.get("decoder", {})
    generation = read_object(folder / "generation_config.json")
    return Settings(
        ends=_tokens(model.get("eos_token_id")) or _tokens(generation.get("eos_token_id")),
        max_length=genai.get("search", {}).get("max_length"),
        context_length=model.get("context_length"),
        threads=decoder.get("session_options", {}).get("intra_op_num_threads"),
        head_size=decoder.get("head_size"),
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.name} is not JSON: {error}", where=path) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} holds no JSON object", where=path)
    return value


def _tokens(value: Any) -> frozenset[int]:
    listed = value if isinstance(value, list) else [value]
    return frozenset(token for token in listed if isinstance(token, int))
