"""The runtime `onnxruntime-genai`: opens packages on targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, RuntimeMissing, Target, UsageError
from drupe_onnxruntime import FATAL, GENAI, MAKE_AGAIN, ONNXRUNTIME, absence, load
from drupe_runtime_genai.providers import provider_options
from drupe_runtime_genai.session import GenaiSession, open_session

CONFIG = "genai_config.json"


class OnnxRuntimeGenai(Runtime):
    """Opens a folder with a genai_config.json, on the target's provider whatever the file says of providers."""

    name = "onnxruntime-genai"
    distributions = GENAI

    def refusal(self, model: Model, target: Target) -> str | None:
        if problem := absence(GENAI, ONNXRUNTIME):
            return problem[0]
        if model.kind != "onnx":
            return f"onnxruntime-genai runs models of kind 'onnx', not '{model.kind}'"
        if not (_folder(model) / CONFIG).is_file():
            return f"the model has no {CONFIG}"
        if not target.here:
            return f"this machine has no device for the provider '{target.provider}'"
        return None

    def open(self, model: Model, target: Target, *, max_length: int | None = None) -> GenaiSession:
        if problem := absence(GENAI, ONNXRUNTIME):
            raise RuntimeMissing(problem[0], cure=problem[1])
        folder = _folder(model)
        config = _read_config(model, folder)
        if not target.here:
            raise RuntimeMissing(
                f"this machine has no device for the provider '{target.provider}'",
                cure="run the package on a machine that has one",
            )
        length = _length(config, max_length)
        module = load(GENAI)
        try:
            opened = module.Model(_settings(module, folder, target, length))
        except RuntimeError as error:
            raise CheckFailed(
                f"onnxruntime-genai refuses the package: {error}", where=folder, cure=MAKE_AGAIN
            ) from error
        entry = config["model"]
        return open_session(module, opened, length, entry["context_length"], entry["vocab_size"])


def _folder(model: Model) -> Path:
    return model.location if model.location.is_dir() else model.location.parent


def _read_config(model: Model, folder: Path) -> dict[str, Any]:
    """genai_config.json with what this runtime needs of it."""
    path = folder / CONFIG
    if model.kind != "onnx" or not path.is_file():
        raise ModelError(
            f"this is no package for onnxruntime-genai: it has no {CONFIG}",
            where=folder,
            cure="make one with drupe optimize, or open the model with the runtime onnxruntime",
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model_entry, search = config["model"], config.get("search", {})
        if not all(isinstance(model_entry[key], int) for key in ("context_length", "vocab_size")):
            raise TypeError("context_length and vocab_size are numbers of tokens")
        int(search.get("max_length", 0))
    except KeyError as error:
        raise ModelError(f"{CONFIG} has no key {error}", where=path) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{CONFIG} cannot be read: {error}", where=path) from error
    return config


def _length(config: dict[str, Any], asked: int | None) -> int:
    """Room for tokens: what is asked for, otherwise the package's own; never more than the model's context."""
    context: int = config["model"]["context_length"]
    if asked is None:
        return min(int(config.get("search", {}).get("max_length") or context), context)
    if asked < 2:
        raise UsageError(f"max_length is {asked}; a prompt and an answer take at least 2 tokens")
    return min(asked, context)


def _settings(module: Any, folder: Path, target: Target, length: int) -> Any:
    """The package's configuration with the target's provider instead of its own."""
    settings = module.Config(str(folder))
    settings.clear_providers()
    for entry in provider_options(target):
        for provider, options in entry.items():
            settings.append_provider(provider)
            for key, value in options.items():
                settings.set_provider_option(provider, key, value)
    decoder = {"session_options": {"log_severity_level": FATAL}}
    settings.overlay(json.dumps({"search": {"max_length": length}, "model": {"decoder": decoder}}))
    return settings
