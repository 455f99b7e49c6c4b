"""The text part of a checkpoint for text and images or sound: its configuration, as if it had been saved alone.

Such a checkpoint's config.json is a wrapper: the settings of its language model lie in a section, mostly without those
that equal the defaults of its class. For text, most of them are a family that also exists alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.text_part_types import (
    ALONE,
    DEFAULTS,
    ENCODERS,
    FIXED,
    FLAT,
    HEADS_SHARE_ALL,
    MEAN_IMAGES,
    READERS,
    SECTIONS,
    UNNAMED,
    WRITERS,
)

GENERATES = ("ForConditionalGeneration", "CausalLM", "ChatModel", "OmniModel", "LMHeadModel")
"""The ends of names of classes that write text."""
EMBEDS = ("EmbeddingGemma2Model",)
"""Classes that give embeddings of texts, images or sound."""
OUTSIDE = (
    "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "quantization", "quantization_config",
    "tie_word_embeddings", "torch_dtype",
)  # fmt: skip
"""The keys that count on the top level, where they stand there."""
ROPE_SECTIONS = ("rope_parameters", "rope_scaling")


def text_part(config: Configuration) -> Configuration | None:
    """The configuration of the language model in a wrapper; None for a configuration that is none.

    Raises ModelError for a section that is no object.
    """
    if not (_writes_text(config) or gives_embeddings(config)):
        return None
    found = _section(config)
    if found is None:
        return None
    kind, section = found
    family = ALONE.get(kind, kind)
    outside = {key: config[key] for key in OUTSIDE if config.get(key) is not None}
    entries = {**_defaults(kind, section), **_named(section), **FIXED.get(kind, {}), **outside}
    entries |= FIXED.get(str(config.get("model_type")), {})
    if kind in HEADS_SHARE_ALL:
        told = Configuration(config.path, entries)
        entries["head_dim"] = told.integer("hidden_size") // told.integer("num_attention_heads")
    if not any("tie_word_embeddings" in each for each in (section, outside)):
        entries["tie_word_embeddings"] = True  # where a head of its own lies in the files, it counts
    return Configuration(config.path, {**_for_text(entries), "model_type": family})


def gives_embeddings(config: Configuration) -> bool:
    """Whether a wrapper is a model of embeddings."""
    names = config.get("architectures")
    return isinstance(names, list) and any(name in EMBEDS for name in names)


def _writes_text(config: Configuration) -> bool:
    names = config.get("architectures")
    listed = names if isinstance(names, list) else []
    return not listed or any(isinstance(name, str) and name.endswith(GENERATES) for name in listed)


def _section(config: Configuration) -> tuple[str, Mapping[str, Any]] | None:
    """The kind of the language model and its settings; None where there are none."""
    outer = config.get("model_type")
    for path in SECTIONS:
        section: Configuration | None = config
        for key in path:
            section = None if section is None else section.section(key)
        if section is not None:
            kind = section.text("model_type", UNNAMED.get(str(outer), "")) or None
            return (kind, section.entries) if isinstance(kind, str) and not _reads_only(kind) else None
    if isinstance(outer, str) and outer in FLAT:
        return FLAT[outer], {key: value for key, value in config.items() if not key.endswith("_config")}
    return None


def _reads_only(kind: str) -> bool:
    """Whether a text part is no decoder that writes text by itself: it encodes."""
    return (kind.endswith(READERS) and kind not in WRITERS) or kind in ENCODERS


def _named(section: Mapping[str, Any]) -> dict[str, Any]:
    """What a section says of the language model; its own class does not count, because the wrapper's does."""
    return {key: value for key, value in section.items() if key not in ("architectures", "auto_map")}


def _defaults(kind: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """What the kind's class takes for keys that are missing. A base inside the rotary parameters is not missing."""
    stated = any(isinstance(rope := section.get(key), dict) and "rope_theta" in rope for key in ROPE_SECTIONS)
    return {key: value for key, value in DEFAULTS.get(kind, {}).items() if not (stated and key == "rope_theta")}


def _for_text(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those of images' positions, which equal those of text where there is only text."""
    found = {key: value for key, value in entries.items() if key not in MEAN_IMAGES}
    for key in ROPE_SECTIONS:
        if isinstance(section := found.get(key), dict):
            found[key] = {name: value for name, value in section.items() if name not in MEAN_IMAGES}
    return found
