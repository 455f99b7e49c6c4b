"""The runtime `onnxruntime`: opens ONNX models on targets."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, RuntimeMissing, Target, usable_threads
from drupe_onnxruntime.plain.embedding_session import OrtEmbeddingSession
from drupe_onnxruntime.plain.graphs import Graphs, files_of, no_graph
from drupe_onnxruntime.plain.model_settings import read_settings
from drupe_onnxruntime.plain.session import OrtSession
from drupe_onnxruntime.plain.stated_options import with_stated
from drupe_onnxruntime.plain.text_session import OrtTextSession
from drupe_onnxruntime.plain.whole_caches import EXTERNAL_DATA, graph_with_whole_caches
from drupe_onnxruntime.provider_options import onnxruntime_provider_options
from drupe_onnxruntime.refusals import MAKE_AGAIN, no_device, refuse_elsewhere
from drupe_onnxruntime.wheels import (
    FATAL,
    INSTALL,
    ONNXRUNTIME,
    absence,
    load,
    refuse_absence,
    refuse_missing_provider,
    version_of,
)

TEXT, EMBEDDING = "text-generation", "feature-extraction"


class OnnxRuntime(Runtime):
    """Opens any ONNX model on the target's provider. The session of a decoder generates text, that of a model of the
    task feature-extraction gives embeddings."""

    name = "onnxruntime"
    distributions = ONNXRUNTIME

    def version(self) -> str | None:
        return version_of(ONNXRUNTIME)

    def refusal(self, model: Model, target: Target) -> str | None:
        if problem := absence(ONNXRUNTIME):
            return problem[0]
        if model.kind != "onnx":
            return f"onnxruntime runs models of kind 'onnx', not '{model.kind}'"
        return no_graph(model) or no_device(target)

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> OrtSession:
        """Open a model of one part at once. The parts of a model of several are opened when they are first run."""
        refuse_absence(ONNXRUNTIME, install=target.install)
        if model.kind != "onnx":
            raise ModelError(f"onnxruntime runs models of kind 'onnx', not '{model.kind}'", where=model.location)
        if reason := no_graph(model):
            raise ModelError(reason, where=model.location)
        refuse_elsewhere(target)
        module = load(ONNXRUNTIME, target.install)
        refuse_missing_provider(module, target)
        files = files_of(model)
        settings = read_settings(next(iter(files.values())).parent)
        used = _threads(target, threads or settings.threads)
        graphs = Graphs(files, functools.partial(_inference_session, module, target, settings.session, used))
        if model.task == EMBEDDING and len(files) == 1:
            return OrtEmbeddingSession(graphs, used)
        if _writes(model, graphs):
            return OrtTextSession(module, graphs, settings, max_length, used)
        return OrtSession(graphs, used)


def _writes(model: Model, graphs: Graphs) -> bool:
    """Whether a model generates text: its task says so, or its only graph is a decoder. Opens that graph."""
    from drupe_onnxruntime.plain.decoder import is_decoder

    if len(graphs.files) > 1:
        return False
    (part,) = graphs.files
    decoder = is_decoder(graphs[part])
    return decoder if model.task is None else model.task == TEXT


def _threads(target: Target, wanted: int | None) -> int | None:
    """How many threads a session has: on the processor all that the process may use, unless a number is wanted."""
    if target.device is not None and target.device.kind == "cpu":
        return wanted or usable_threads()
    return None


def _inference_session(module: Any, target: Target, stated: Mapping[str, Any], threads: int | None, path: Path) -> Any:
    """Open a graph. stated: the package's session options; the number of threads is decided already.

    Raises RuntimeMissing where the provider does not start, CheckFailed where the model is refused.
    """
    options = with_stated(module.SessionOptions(), stated, module)
    options.log_severity_level = FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = [(target.runtime_name, onnxruntime_provider_options(target, stated))]
    graph = graph_with_whole_caches(path)
    if graph is not None:
        options.add_session_config_entry(EXTERNAL_DATA, str(path.parent))
    try:
        session = module.InferenceSession(graph or str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
        raise CheckFailed(f"onnxruntime cannot open the model: {error}", where=path, cure=MAKE_AGAIN) from error
    if session.get_providers()[0] != target.runtime_name:
        raise RuntimeMissing(
            f"{target.runtime_name} does not start on this machine, and onnxruntime fell back to "
            f"{session.get_providers()[0]}",
            cure=target.install or INSTALL,
        )
    return session
