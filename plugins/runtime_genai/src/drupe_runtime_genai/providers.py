"""Execution providers in onnxruntime-genai's words."""

from __future__ import annotations

from drupe.api import Target


def provider_options(target: Target) -> list[dict[str, dict[str, str]]]:
    """The `provider_options` of genai_config.json for a target, such as [{"cuda": {"enable_cuda_graph": "0"}}].

    The target's `runtime_options` are that entry: onnxruntime-genai's name for the provider, and its options, which
    have to be text. An empty list stands for onnxruntime's own provider, which is always there and takes no options.
    """
    return [
        {provider: {key: _text(value) for key, value in options.items()}}
        for provider, options in target.runtime_options.items()
    ]


def _text(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)
