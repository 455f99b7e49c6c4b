"""The runtime `onnxruntime`: opens ONNX models on targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, RuntimeMissing, Target, usable_threads
from drupe_onnxruntime import FATAL, INSTALL, MAKE_AGAIN, ONNXRUNTIME, absence, load
from drupe_runtime_ort.session import OrtSession
from drupe_runtime_ort.settings import Settings, read_settings


class OnnxRuntime(Runtime):
    """Opens any ONNX model on the target's provider."""

    name = "onnxruntime"
    distributions = ONNXRUNTIME

    def refusal(self, model: Model, target: Target) -> str | None:
        if problem := absence(ONNXRUNTIME):
            return problem[0]
        if model.kind != "onnx":
            return f"onnxruntime runs models of kind 'onnx', not '{model.kind}'"
        if _graph_file(model) is None:
            return "the model has no .onnx file"
        if not target.here:
            return f"this machine has no device for the provider '{target.provider}'"
        return None

    def open(self, model: Model, target: Target, *, max_length: int | None = None) -> OrtSession:
        if problem := absence(ONNXRUNTIME):
            raise RuntimeMissing(problem[0], cure=problem[1])
        path = _graph_file(model)
        if model.kind != "onnx" or path is None:
            raise ModelError("there is no ONNX model to open", where=model.location)
        if not target.here:
            raise RuntimeMissing(
                f"this machine has no device for the provider '{target.provider}'",
                cure="run the model on a machine that has one",
            )
        module = load(ONNXRUNTIME)
        settings = read_settings(path.parent)
        session = _inference_session(module, path, target, settings)
        return OrtSession(module, session, path.parent, settings.with_metadata(session), max_length)


def _graph_file(model: Model) -> Path | None:
    """The model's file: itself, `model.onnx` in its folder, or the only .onnx file there."""
    if model.location.is_file():
        return model.location
    if (named := model.location / "model.onnx").is_file():
        return named
    found = sorted(model.location.glob("*.onnx"))
    return found[0] if len(found) == 1 else None


def _inference_session(module: Any, path: Path, target: Target, settings: Settings) -> Any:
    """Raises RuntimeMissing where this onnxruntime lacks the provider or cannot start it, CheckFailed for the model."""
    available = module.get_available_providers()
    if target.runtime_name not in available:
        raise RuntimeMissing(
            f"the onnxruntime that is installed ({module.__version__}) has no {target.runtime_name}; it has "
            + ", ".join(available),
            cure=INSTALL,
        )
    options = module.SessionOptions()
    options.log_severity_level = FATAL
    if target.device is not None and target.device.kind == "cpu":
        options.intra_op_num_threads = settings.threads or usable_threads()
    try:
        session = module.InferenceSession(
            str(path), options, providers=[(target.runtime_name, provider_options(target))]
        )
    except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
        raise CheckFailed(f"onnxruntime refuses the model: {error}", where=path, cure=MAKE_AGAIN) from error
    if session.get_providers()[0] != target.runtime_name:
        raise RuntimeMissing(
            f"{target.runtime_name} does not start on this machine, and onnxruntime fell back to "
            f"{session.get_providers()[0]}",
            cure=INSTALL,
        )
    return session


def provider_options(target: Target) -> dict[str, str]:
    """The target's options as onnxruntime takes them: text, and without onnxruntime-genai's name for the provider."""
    return {
        key: str(int(value) if isinstance(value, bool) else value)
        for options in target.runtime_options.values()
        for key, value in options.items()
    }
