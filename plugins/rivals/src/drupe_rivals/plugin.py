"""The entry module of drupe-rivals: three runtimes, and the kind `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model


@hookimpl
def drupe_runtimes() -> list[Ref]:
    return [
        Ref("transformers", "drupe_rivals.checkpoints:Transformers", "runs checkpoints, to compare packages with"),
        Ref("llama-cpp-python", "drupe_rivals.llama_cpp:LlamaCpp", "runs GGUF files, to compare packages with"),
        Ref("openvino", "drupe_rivals.openvino:OpenVino", "runs OpenVINO's models, to compare packages with"),
    ]


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("openvino", "drupe_rivals.openvino_kind:OpenVinoKind", "a model in OpenVINO's format (IR)")]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    from drupe_rivals.openvino_kind import resolve

    return resolve(reference)
