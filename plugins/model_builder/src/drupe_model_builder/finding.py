"""The families that are built: those of this plugin and those of others.

This plugin has one file for each in the folder `families`, called by its `model_type`; a hyphen in it is an underscore
there. It holds a function of that name, from config.json to a composition of parts. Other distributions bring
families by the hook `drupe_decoder_families`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Notice, nearest, registry
from drupe_checkpoints import FEATURE_EXTRACTION, Checkpoint, Configuration
from drupe_model_builder import families
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.accounting import accounted, configuration_notices
from drupe_model_builder.configuration.directions import refuse_generation
from drupe_model_builder.refused import ENCODER, ENCODER_DECODER, ENCODERS, OTHER_TOOL, REFUSED

if TYPE_CHECKING:
    from drupe.api import Entry

Family = Callable[[Configuration], Decoder]
HOOK = "drupe_decoder_families"
WITHOUT_HEAD = "Model"
"""The end of the name of a class without a head, such as Qwen3Model."""
MASKED = "ForMaskedLM"
HYPHENATED = {name.replace("-", "_"): name for name in ("gpt-sw3", "modernbert-decoder", "openai-gpt")}
"""The `model_type` of families whose file and function are called otherwise, because it is no name in Python."""
GENERATES = ("ForCausalLM", "LMHeadModel", "ChatGLMForConditionalGeneration", "ChatGLMModel")


def own_families() -> list[str]:
    """The `model_type` of every family that this plugin builds."""
    return sorted(HYPHENATED.get(module.name, module.name) for module in pkgutil.iter_modules(families.__path__))


def summary_of(model_type: str) -> str:
    """What one of this plugin's families is, in a line: the first of its file."""
    path = Path(families.__path__[0]) / f"{model_type.replace('-', '_')}.py"
    with path.open(encoding="utf-8") as file:
        return file.readline().strip().strip('"')


def families_of_others() -> dict[str, Entry[Any]]:
    """The families of other distributions, by `model_type`."""
    own = set(own_families())
    return {entry.ref.name: entry for entry in registry().offered("decoder family", HOOK) if entry.ref.name not in own}


@functools.cache
def own_family(model_type: str) -> Family:
    """The function of one of this plugin's families."""
    name = model_type.replace("-", "_")
    found: Family = getattr(importlib.import_module(f"drupe_model_builder.families.{name}"), name)
    return found


def family_of(checkpoint: Checkpoint) -> Family:
    """The family that a checkpoint's `model_type` names. Raises ModelError where nobody builds it."""
    model_type = checkpoint.model_type
    if model_type in own_families():
        return own_family(model_type)
    others = families_of_others()
    if model_type in others:
        found: Any = others[model_type].resolve()
        family: Family = found
        return family
    if model_type in REFUSED:
        raise ModelError(
            f"the architecture {_named(checkpoint)} is not supported: {REFUSED[model_type]}",
            where=checkpoint.config.path,
            cure="choose another model; drupe inspect --families lists what is supported",
        )
    if reason := _is_no_decoder(checkpoint):
        raise ModelError(
            f"the architecture {_named(checkpoint)} is not supported: {reason}",
            where=checkpoint.config.path,
            cure=OTHER_TOOL,
        )
    raise ModelError(
        f"the architecture {_named(checkpoint)} is not supported; {_near(model_type, [*own_families(), *others])}",
        where=checkpoint.config.path,
        cure="drupe inspect --families lists what is; a plugin can bring the family (docs/families.md says how)",
    )


def composition_of(checkpoint: Checkpoint) -> Decoder:
    """The composition of a checkpoint's decoder: without a head where its task is feature-extraction.

    Raises ModelError for an unsupported checkpoint.
    """
    family = family_of(checkpoint)
    has_head = checkpoint.task != FEATURE_EXTRACTION
    served = GENERATES if has_head else (*GENERATES, WITHOUT_HEAD)
    if checkpoint.architectures and not any(name.endswith(served) for name in checkpoint.architectures):
        raise ModelError(
            f"{_name(checkpoint)} does not generate text or give embeddings; only ...ForCausalLM and ...Model are "
            "supported",
            where=checkpoint.config.path,
            cure="use the causal language model that the checkpoint was made from",
        )
    _ = checkpoint.packing  # raises ModelError for an unsupported quantization
    decoder = accounted(checkpoint.config, family)
    if not has_head:
        return decoder.without_head()
    refuse_generation(checkpoint.config, decoder)
    return decoder


def notices_of(checkpoint: Checkpoint) -> Iterator[Notice]:
    """What a user should know of a checkpoint's config.json."""
    return configuration_notices(checkpoint, family_of(checkpoint), own_families())


def _name(checkpoint: Checkpoint) -> str:
    return ", ".join(checkpoint.architectures) or checkpoint.model_type


def _named(checkpoint: Checkpoint) -> str:
    """The class, and the `model_type`, which decides on the family."""
    also = f" (model_type {checkpoint.model_type})" if checkpoint.architectures else ""
    return f"'{_name(checkpoint)}'{also}"


def _is_no_decoder(checkpoint: Checkpoint) -> str:
    """Why a checkpoint is known to be no decoder; "" for any other."""
    if checkpoint.config.get("is_encoder_decoder") is True:
        return ENCODER_DECODER
    masked = any(name.endswith(MASKED) for name in checkpoint.architectures)
    return ENCODER if masked or checkpoint.model_type in ENCODERS else ""


def _near(model_type: str, known: list[str]) -> str:
    """The families of the same name but for what follows it, such as a version: others are alike in spelling only."""
    close = nearest(model_type, [name for name in known if _stem(name) == _stem(model_type)])
    return f"similar and supported: {', '.join(close)}" if close else f"{len(known)} families are"


def _stem(model_type: str) -> str:
    """The letters at the beginning: of "qwen3_moe" "qwen"."""
    found = re.match("[a-z]*", model_type.casefold())
    return found.group() if found else ""
