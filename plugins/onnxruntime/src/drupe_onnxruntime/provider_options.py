"""A target's provider options, in the formats of onnxruntime-genai and of onnxruntime.

`Target.runtime_options` has onnxruntime-genai's format: its name for the provider, and the provider's options. A
package's session options may have others for the same provider, which then hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Target


def genai_provider_options(
    target: Target, session_options: Mapping[str, Any] | None = None
) -> list[dict[str, dict[str, str]]]:
    """The `provider_options` of genai_config.json for a target, such as [{"cuda": {"enable_cuda_graph": "0"}}].

    session_options: those of a package. An empty list stands for onnxruntime's CPU provider, which always exists.
    """
    own = _of_package(target, session_options or {})
    return [
        {provider: {key: _text(value) for key, value in {**options, **own}.items()}}
        for provider, options in target.runtime_options.items()
    ]


def onnxruntime_provider_options(target: Target, session_options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The options for onnxruntime, which takes the provider's name separately: {"enable_cuda_graph": "0"}."""
    stated = {key: value for options in target.runtime_options.values() for key, value in options.items()}
    return {key: _text(value) for key, value in {**stated, **_of_package(target, session_options or {})}.items()}


def _of_package(target: Target, session_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a package has for the target's provider."""
    names = {name.casefold() for name in (*target.runtime_options, target.provider, target.runtime_name)}
    listed = session_options.get("provider_options", [])
    entries = [pair for entry in listed if isinstance(entry, dict) for pair in entry.items()]
    return {
        key: value
        for provider, options in entries
        if provider.casefold() in names and isinstance(options, dict)
        for key, value in options.items()
    }


def _text(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)
