"""A target's provider options, in the formats of onnxruntime-genai and of onnxruntime.

`Target.runtime_options` has onnxruntime-genai's format: its name for the provider, and the provider's options.
"""

from __future__ import annotations

from drupe.api import Target


def genai_provider_options(target: Target) -> list[dict[str, dict[str, str]]]:
    """The `provider_options` of genai_config.json for a target, such as [{"cuda": {"enable_cuda_graph": "0"}}].

    An empty list stands for onnxruntime's CPU provider, which always exists and takes no options.
    """
    return [
        {provider: {key: _text(value) for key, value in options.items()}}
        for provider, options in target.runtime_options.items()
    ]


def onnxruntime_provider_options(target: Target) -> dict[str, str]:
    """The options for onnxruntime, which takes the provider's name separately: {"enable_cuda_graph": "0"}."""
    return {key: _text(value) for options in target.runtime_options.values() for key, value in options.items()}


def _text(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)
