"""The task `graph`: models of unknown purpose. Only the inputs and outputs of their graphs are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed, Model, ModelError, RuntimeMissing, Session, Target, Task
from drupe_onnx_models.recognizing import GRAPH

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN = 3  # how many outputs are listed by name


class GraphTask(Task):
    """Runs each graph on random inputs that fit it, and checks that the outputs are finite."""

    name = GRAPH
    summary = "any ONNX graph: tried on random inputs, and compared with its source output by output"
    evaluator = "outputs"

    def samples(
        self, model: Model, target: Target, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """One set of inputs for each part. Raises ModelError for an input whose type cannot be drawn."""
        from drupe_onnx_models.drawing import refuse_unknown_axes
        from drupe_onnx_models.graphs import inputs_of, outlines_of

        outlines = outlines_of(model)
        refuse_unknown_axes(sizes or {}, outlines.values())
        return {role: next(inputs_of(model, outline, seed, sizes)) for role, outline in outlines.items()}

    def check(self, session: Session, model: Model) -> str:
        """Raises CheckFailed for a graph that does not run, and for outputs that are not finite.

        A graph whose inputs cannot be drawn is unchecked, not broken: this raises RuntimeMissing.
        """
        from drupe_onnx_models.graphs import outlines_of, run_on_random

        told = []
        for role, outline in outlines_of(model).items():
            try:
                _, outputs = run_on_random(session, role, model, outline)
            except ModelError as error:
                raise RuntimeMissing(error.what, where=error.where, cure=error.cure) from error
            for name, array in outputs.items():
                _refuse_non_finite(name, array)
                told.append(f"{name} {list(array.shape)}")
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        return f"random inputs give finite outputs: {', '.join(told[:_SHOWN])}{more}"


def _refuse_non_finite(name: str, array: NDArray[Any]) -> None:
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CheckFailed(
            f"the output '{name}' is not finite on random inputs",
            cure="check whether the source gives finite numbers: very large weights overflow",
        )
