"""Accounting for config.json: each key is known, or said to be unknown, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

from drupe.api import ModelError, Notice
from drupe_checkpoints import Checkpoint, Configuration
from drupe_decoding import GENERATION_KEYS
from drupe_model_builder.architectures.keys import KEYS, ROPE, Keys

SHOWN = 80
"""Characters of a value in a message."""


def refuse_unsupported_keys(config: Configuration) -> None:
    """Raise ModelError for a key that asks for a computation that is not built."""
    for section, keys in _sections(config):
        for key, value in section.items():
            limit = keys.limited.get(key)
            if limit is None or limit.allows(value, config):
                continue
            architecture = config["model_type"]
            cure = limit.cure or (
                f"remove the key to get what transformers computes, whose {architecture} ignores it; if the model was "
                "trained with it, it needs a plugin that builds it"
            )
            raise ModelError(
                f"{key} = {_shown(value)} in {config.path.name} {limit.means}, which is not supported for "
                f"{architecture} models",
                where=config.path,
                cure=cure,
            )


def configuration_notices(checkpoint: Checkpoint) -> Iterator[Notice]:
    """Notices on keys that nobody knows, on settings in the wrong file, and on a class of another architecture."""
    config = checkpoint.config
    unknown = [
        key
        for section, keys in _sections(config)
        for key, value in section.items()
        if key not in keys and key not in GENERATION_KEYS and value is not None
    ]
    if unknown:
        yield Notice(
            "config.json",
            "has no effect",
            f"{_keys_named(unknown)} not known and taken to change nothing, as in transformers: {', '.join(unknown)}",
            "see in the model's description whether it computes something of its own",
        )
    yield from _another_class(checkpoint)


def _another_class(checkpoint: Checkpoint) -> Iterator[Notice]:
    model_type = checkpoint.model_type
    others = [name for name in checkpoint.architectures if _architecture(name) != model_type.replace("_", "").lower()]
    if others:
        yield Notice(
            "config.json",
            "chosen",
            f"the model is built as model_type says, '{model_type}', as in transformers, although architectures names "
            f"{', '.join(others)}",
            "correct the one that is wrong",
        )


def _architecture(class_name: str) -> str:
    return class_name.removesuffix("ForCausalLM").lower()


def _sections(config: Configuration) -> Iterator[tuple[Configuration, Keys]]:
    """config.json and the parameters of its rotary embedding, with their tables."""
    yield config, KEYS[config["model_type"]]
    yield config.rope(), ROPE


def _keys_named(keys: list[str]) -> str:
    return "a key is" if len(keys) == 1 else f"{len(keys)} keys are"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
