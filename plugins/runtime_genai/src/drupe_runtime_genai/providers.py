"""Execution providers in onnxruntime-genai's words."""

from __future__ import annotations

from collections.abc import Mapping

from drupe.api import Target

_BUILT_IN = "cpu"
"""onnxruntime's own provider: always there, takes no options, and is named by an empty list."""


def provider_options(target: Target) -> list[dict[str, dict[str, str]]]:
    """The `provider_options` of genai_config.json for a target: one entry, or none for the built-in provider.

    onnxruntime-genai calls CUDAExecutionProvider "cuda"; it reads names in any case, and all values as text.
    """
    name = target.runtime_name.removesuffix("ExecutionProvider").lower()
    if name in ("", _BUILT_IN):
        return []
    return [{name: _texts(target.runtime_options)}]


def _texts(options: Mapping[str, object]) -> dict[str, str]:
    return {key: str(int(value) if isinstance(value, bool) else value) for key, value in options.items()}
