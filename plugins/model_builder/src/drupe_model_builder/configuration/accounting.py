"""Accounting for config.json: each key is known, or said to be unknown, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from drupe.api import ModelError, Notice
from drupe_checkpoints import Checkpoint, Configuration
from drupe_checkpoints.wording import shown
from drupe_decoding import GENERATION_KEYS, overruled_settings
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.directions import directed
from drupe_model_builder.configuration.keys import (
    EXPERTS,
    LIMITED,
    NEUTRAL,
    OF_FAMILIES,
    READ_ELSEWHERE,
    ROPE_LIMITED,
    ROPE_NEUTRAL,
    ROPE_USED,
    Limited,
)
from drupe_model_builder.configuration.recorded import RecordedConfiguration

SAME_CLASS = {"kimi_k2": "deepseekv3"}
"""Families whose checkpoints name the class of another one, which computes the same."""


def accounted(config: Configuration, family: Callable[[Configuration], Decoder]) -> Decoder:
    """What a family composes of config.json. Raises ModelError for a key that asks for what is not built."""
    recorded = RecordedConfiguration(config.path, config.entries)
    decoder = directed(recorded, family(recorded))
    for section, read, limits in _sections(recorded):
        for key, value in section.items():
            limit = limits.get(key)
            if limit is not None and decoder.experts and limit.means == EXPERTS:
                continue  # of the many names for numbers of experts, a family reads its own
            if limit is not None and key not in read and not limit.allows(value, config):
                raise _unsupported(config, key, value, limit)
    return decoder


def _unsupported(config: Configuration, key: str, value: object, limit: Limited) -> ModelError:
    family = config["model_type"]
    cure = limit.cure or (
        f"remove the key to get what transformers computes, whose {family} ignores it; if the model was trained with "
        "it, it needs a plugin that builds it"
    )
    return ModelError(
        f"{key} = {shown(value)} in {config.path.name} {limit.means}, which is not supported for {family} models",
        where=config.path,
        cure=cure,
    )


def configuration_notices(
    checkpoint: Checkpoint, family: Callable[[Configuration], Decoder], families: Iterable[str]
) -> Iterator[Notice]:
    """Notices on keys that nobody knows, and on a class of another family. families: the names of all."""
    config = checkpoint.config
    recorded = RecordedConfiguration(config.path, config.entries)
    family(recorded)
    known = (NEUTRAL | READ_ELSEWHERE | set(GENERATION_KEYS), ROPE_NEUTRAL | ROPE_USED)
    unknown = [
        key
        for (section, read, limits), neutral in zip(_sections(recorded), known, strict=True)
        for key, value in section.items()
        if key not in read and key not in limits and key not in neutral and value is not None
    ]
    if unknown:
        yield Notice(
            "config.json",
            "has no effect",
            f"{_keys_named(unknown)} not known and taken to change nothing, as in transformers: {', '.join(unknown)}",
            "see in the model's description whether it computes something of its own",
        )
    yield from _another_class(checkpoint, families)
    yield from _overruled_settings(checkpoint)


def _overruled_settings(checkpoint: Checkpoint) -> Iterator[Notice]:
    """Settings for generating text that stand in config.json beside a generation_config.json."""
    if not checkpoint.has_generation_config:
        return
    if keys := overruled_settings(checkpoint.config, checkpoint.generation):
        yield Notice(
            checkpoint.config.path.name,
            "has no effect",
            f"{', '.join(f'{key} = {shown(checkpoint.config[key])}' for key in keys)}: "
            f"{checkpoint.generation.path.name} counts, as in transformers",
            f"write the keys into {checkpoint.generation.path.name} if answers should keep to them",
        )


def _another_class(checkpoint: Checkpoint, families: Iterable[str]) -> Iterator[Notice]:
    model_type = checkpoint.model_type
    known = {name.replace("_", "") for name in families} - {model_type.replace("_", ""), SAME_CLASS.get(model_type)}
    others = [name for name in checkpoint.architectures if _architecture(name) in known]
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


def _sections(
    recorded: RecordedConfiguration,
) -> Iterator[tuple[Mapping[str, object], set[str], Mapping[str, Limited]]]:
    """config.json and the parameters of its rotary embedding: what they hold, what was read, and the limits.

    Parameters that differ between types of layers are nested; each type's keys count.
    """
    own = OF_FAMILIES.get(recorded.entries["model_type"], {})
    yield recorded.entries, recorded.keys_read, {**LIMITED, **own}
    held: dict[str, object] = {}
    for name in ("rope_scaling", "rope_parameters"):
        section = recorded.entries.get(name)
        for key, value in section.items() if isinstance(section, dict) else ():
            held.update(value if isinstance(value, dict) else {key: value})
    yield held, recorded.rope_keys_read, ROPE_LIMITED


def _keys_named(keys: list[str]) -> str:
    return "a key is" if len(keys) == 1 else f"{len(keys)} keys are"
