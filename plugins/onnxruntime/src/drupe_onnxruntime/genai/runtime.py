"""The runtime `onnxruntime-genai`: opens packages on targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, RuntimeMissing, Target, UsageError
from drupe_decoding import GenerationRules
from drupe_onnx import folder_of
from drupe_onnxruntime.genai.session import GenaiSession
from drupe_onnxruntime.provider_options import genai_provider_options
from drupe_onnxruntime.refusals import MAKE_AGAIN, no_device, only_on_the_processor, refuse_elsewhere
from drupe_onnxruntime.wheels import (
    FATAL,
    GENAI,
    ONNXRUNTIME,
    absence,
    load,
    refuse_absence,
    refuse_missing_provider,
    version_of,
)
from drupe_tokenization import read_object

CONFIG, GENERATION = "genai_config.json", "generation_config.json"


class OnnxRuntimeGenai(Runtime):
    """Opens a folder with a genai_config.json, on the target's provider; the file's options for another are ignored."""

    name = "onnxruntime-genai"
    distributions = GENAI

    def version(self) -> str | None:
        return version_of(GENAI)

    def refusal(self, model: Model, target: Target) -> str | None:
        if problem := absence(GENAI, ONNXRUNTIME):
            return problem[0]
        if model.kind != "onnx":
            return f"onnxruntime-genai runs models of kind 'onnx', not '{model.kind}'"
        if not (folder_of(model) / CONFIG).is_file():
            return f"the model has no {CONFIG}"
        return no_device(target) or only_on_the_processor(target)

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> GenaiSession:
        refuse_absence(GENAI, ONNXRUNTIME, install=target.install)
        folder = folder_of(model)
        config = _read_config(model, folder)
        refuse_elsewhere(target)
        length = _length(config, max_length)
        if reason := only_on_the_processor(target):
            raise RuntimeMissing(reason, cure="open it with the runtime onnxruntime")
        if target.device is not None and target.device.kind != "cpu":
            refuse_missing_provider(load(ONNXRUNTIME, target.install), target)
        module = load(GENAI, target.install)
        try:
            opened = module.Model(_settings(module, folder, target, length, threads, _session_options(config)))
        except RuntimeError as error:
            raise CheckFailed(
                f"onnxruntime-genai cannot open the package: {error}", where=folder, cure=MAKE_AGAIN
            ) from error
        entry = config["model"]
        ends = _stop_tokens(entry)
        rules = GenerationRules.read(read_object(folder / GENERATION), ends)
        used = threads or _session_options(config).get("intra_op_num_threads")
        return GenaiSession(
            module, opened, folder, length, entry["context_length"], entry["vocab_size"], rules, ends, used
        )


def _read_config(model: Model, folder: Path) -> dict[str, Any]:
    """genai_config.json, after a check of the keys that this runtime needs."""
    path = folder / CONFIG
    if model.kind != "onnx" or not path.is_file():
        raise ModelError(
            f"this is not a package for onnxruntime-genai: it has no {CONFIG}",
            where=folder,
            cure="make one with drupe optimize, or open the model with the runtime onnxruntime",
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model_entry, search = config["model"], config.get("search", {})
        if not all(isinstance(model_entry[key], int) for key in ("context_length", "vocab_size")):
            raise TypeError("context_length and vocab_size must be numbers of tokens")
        int(search.get("max_length", 0))
    except KeyError as error:
        raise ModelError(f"{CONFIG} has no key {error}", where=path) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{CONFIG} cannot be read: {error}", where=path) from error
    return config


def _stop_tokens(entry: dict[str, Any]) -> list[int]:
    """The tokens that end an answer."""
    ends = entry.get("eos_token_id", [])
    return ends if isinstance(ends, list) else [ends]


def _length(config: dict[str, Any], asked: int | None) -> int:
    """Room for tokens: the number that was asked for, or the package's own; at most the model's context."""
    context: int = config["model"]["context_length"]
    if asked is None:
        return min(int(config.get("search", {}).get("max_length") or context), context)
    if asked < 2:
        raise UsageError(f"max_length is {asked}; it must be at least 2, for a prompt and an answer")
    return min(asked, context)


def _session_options(config: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = config["model"].get("decoder", {}).get("session_options", {})
    return options


def _settings(
    module: Any, folder: Path, target: Target, length: int, threads: int, session_options: Mapping[str, Any]
) -> Any:
    """The package's configuration with the target's provider instead of its own. threads: 0 for its own number."""
    settings = module.Config(str(folder))
    settings.clear_providers()
    for entry in genai_provider_options(target, session_options):
        for provider, options in entry.items():
            settings.append_provider(provider)
            for key, value in options.items():
                settings.set_provider_option(provider, key, value)
    session = {"log_severity_level": FATAL} | ({"intra_op_num_threads": threads} if threads else {})
    model = {"decoder": {"session_options": session}}
    settings.overlay(json.dumps({"search": {"max_length": length}, "model": model}))
    return settings
