"""The runtime `openvino`: stateful models that write text, on the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, Target, usable_threads
from drupe_rivals.openvino_kind import KIND, TASK, graph_of, settings_of
from drupe_rivals.rows import RowsSession, Step
from drupe_rivals.wheels import load, refuse_elsewhere, refuse_missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INSTALL = "pip install openvino"
TOKENS, MASK, POSITIONS, BEAMS = "input_ids", "attention_mask", "position_ids", "beam_idx"
LOGITS = "logits"


class OpenVino(Runtime):
    """Opens what `optimum-cli export openvino` and openvino-genai write."""

    name = "openvino"
    distributions = ("openvino",)

    def refusal(self, model: Model, target: Target) -> str | None:
        if model.kind != KIND:
            return "openvino runs OpenVINO's models"
        if model.task != TASK:
            what = "openvino is measured with models that write text and keep their cache, and this one keeps none"
            raise ModelError(what, where=model.location, cure="export it as a stateful model")
        refuse_elsewhere(self.name, target)
        refuse_missing(self.distributions, INSTALL)
        return None

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> RowsSession:
        refuse_missing(self.distributions, INSTALL)
        library = load("openvino", "openvino", INSTALL)
        used = threads or usable_threads()
        try:
            core = library.Core()
            graph = core.read_model(graph_of(model.location))
            _keep_last_logits(load("openvino.opset13", "openvino", INSTALL), graph)
            compiled = core.compile_model(
                graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": used}
            )
        except RuntimeError as error:
            raise CheckFailed(f"openvino cannot open the model: {error}", where=model.location) from error
        context = settings_of(model.location).get("max_position_embeddings")
        return OpenVinoSession(library, compiled, context if isinstance(context, int) else None, used)


def _keep_last_logits(opset: Any, graph: Any) -> None:
    """Compute logits of the last token only, as openvino-genai's pipelines do with a prompt."""
    source = graph.output(LOGITS).get_node().input_value(0).get_node()
    while source.get_type_name() in ("Convert", "Multiply", "Divide", "Tanh"):  # a cast, or a soft cap
        source = source.input_value(0).get_node()
    if source.get_type_name() != "MatMul":
        return
    hidden = source.input(0)
    last = opset.slice(hidden.get_source_output(), [-1], [2**31 - 1], [1], [1])
    hidden.replace_source_output(last.output(0))
    graph.validate_nodes_and_infer_types()


class OpenVinoSession(RowsSession):
    """A model that is open in OpenVINO, whose state is its cache."""

    def __init__(self, library: Any, compiled: Any, context: int | None, threads: int) -> None:
        self._library = library
        self._request = compiled.create_infer_request()
        self._types = {each.get_any_name(): each.get_element_type().to_dtype() for each in compiled.inputs}
        if strange := [name for name in self._types if name not in (TOKENS, MASK, POSITIONS, BEAMS)]:
            raise CheckFailed(f"the model has an input '{strange[0]}', which models that write text do not have")
        size = compiled.output(LOGITS).get_partial_shape()[2]
        self.vocabulary = size.get_length() if size.is_static else None
        self.context_length = self.max_length = context
        self.threads = threads

    def begin(self, rows: int, room: int) -> Step:
        import numpy as np

        self._request.reset_state()
        read = 0

        def step(tokens: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
            nonlocal read
            length = tokens.shape[1]
            read += length
            arrays = {
                TOKENS: tokens,
                MASK: np.ones((rows, read)),
                POSITIONS: np.tile(np.arange(read - length, read), (rows, 1)),
                BEAMS: np.arange(rows),
            }
            given = self._request.infer(
                {name: arrays[name].astype(dtype, copy=False) for name, dtype in self._types.items()},
                share_inputs=True,
                share_outputs=True,
            )
            logits: NDArray[np.floating[Any]] = given[LOGITS][:, -1]
            return logits

        return step

    def close(self) -> None:
        self._request = None
