"""OrtSession: a model whose graphs are open in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drupe.api import ONLY_PART, CheckFailed, Session, UsageError, counted, unknown
from drupe_onnxruntime.plain.graphs import Graphs


class OrtSession(Session):
    """Runs the graphs of a model by part and name.

    graphs: the onnxruntime.InferenceSession of each part.
    """

    def __init__(self, graphs: Graphs, threads: int | None = None) -> None:
        self.graphs = graphs
        self.threads = threads
        self.parts = tuple(graphs.files)

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, part: str = ONLY_PART
    ) -> Mapping[str, Any]:
        """Run one part once. outputs: the names to give, None for all.

        Raises UsageError for wrong names, and for several rows with several new tokens after a past where the graph
        does not take them.
        """
        graph = self.graphs[part]
        takes = [value.name for value in graph.get_inputs()]
        gives = [value.name for value in graph.get_outputs()]
        for name in inputs:
            if name not in takes:
                raise unknown("input", name, takes)
        if missing := [name for name in takes if name not in inputs]:
            raise UsageError(f"the input '{missing[0]}' is missing; the model's inputs are {', '.join(takes)}")
        wanted = gives if outputs is None else list(outputs)
        for name in wanted:
            if name not in gives:
                raise unknown("output", name, gives)
        try:
            return dict(zip(wanted, graph.run(wanted, dict(inputs)), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
            _refuse_rows_with_a_past(inputs, error)
            raise CheckFailed(f"onnxruntime cannot run the model: {error}") from error

    def close(self) -> None:
        self.graphs.close()


def _refuse_rows_with_a_past(inputs: Mapping[str, Any], error: Exception) -> None:
    """Raise UsageError where a decoder was given several rows with several new tokens after a past.

    GroupQueryAttention takes one new token of each row then. Graphs with other operators run, so what the inputs hold
    is looked at only after an error.
    """
    from drupe_decoding import TOKENS, cache_name, is_state

    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in inputs.items()}
    rows, length, *_ = (*shapes.get(TOKENS, ()), 0, 0)
    caches = [shape for name, shape in shapes.items() if cache_name(name) and not is_state(name) and len(shape) == 4]
    past = max((shape[2] for shape in caches), default=0)
    if rows > 1 and length > 1 and past > 0:
        raise UsageError(
            f"{rows} rows have {length} new tokens each after a past of {counted(past, 'token')}; the model's "
            "attention takes one "
            "new token of each row after a past",
            cure="run the new tokens one by one, with the caches of the step before; or each row by itself",
        ) from error
