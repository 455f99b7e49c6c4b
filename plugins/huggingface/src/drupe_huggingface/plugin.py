"""What this distribution adds: the kind `hf`, and how a folder or a hub id becomes a model of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("hf", "drupe_huggingface.kind:HfKind", "a checkpoint as transformers saves it")]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    from drupe_huggingface.resolve import resolve

    return resolve(reference, options)
