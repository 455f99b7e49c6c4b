"""Sub-graphs: a part of a decoder's graph as a separate model, and that model open in its runtime."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drupe.api import ONLY_PART, Context, Model, Progress, Session
from drupe_files import disk_errors
from drupe_layerwise.attention import norms_apart
from drupe_layerwise.segments import whole
from drupe_layerwise.weights import LookUp, Weights, take_out
from drupe_onnx import OnnxPackage, all_logits, ir, write_package


@dataclass(frozen=True)
class Opened:
    """An open sub-graph. inputs: the values of the whole graph that it takes. outputs: the names of its outputs.

    matrices, look_ups: weights that are also passed as inputs.
    """

    session: Session
    inputs: Sequence[ir.Value]
    outputs: Sequence[str]
    matrices: Mapping[str, NDArray[Any]]
    look_ups: Sequence[LookUp]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The outputs by name."""
        given = {**inputs, **self.matrices}
        for each in self.look_ups:
            given |= each.inputs(inputs)
        return self.session.run(given, self.outputs)


def cut_out(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The sub-graph that computes `outputs` from `inputs`, for all tokens. Unused `inputs` are dropped.

    The weights are shared. Shapes of inner values are left out, because those for the last token alone would be wrong.
    """
    asked = [*dict.fromkeys([*inputs, *model.graph.inputs])]
    graph = ir.convenience.extract(model.graph, asked, outputs)
    functions = [function.clone() for function in model.functions.values()]
    part = all_logits(ir.Model(graph, ir_version=model.ir_version or 10, functions=functions))
    _drop_unused_inputs(part.graph)
    given = {value.name for value in model.graph.inputs}
    for value in part.graph.inputs:
        if value.name not in given and value.shape is not None:
            value.shape = ir.Shape([None] * (len(value.shape) - 1) + list(value.shape[-1:]))
    for node in part.graph:
        for value in node.outputs:
            value.shape = None
    return part


def _drop_unused_inputs(graph: ir.Graph) -> None:
    used = [value for value in graph.inputs if value.uses()]
    graph.inputs.clear()
    graph.inputs.extend(used)


@contextmanager
def opened(
    model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], home: Path, context: Context
) -> Iterator[Opened]:
    """Write the sub-graph from `inputs` to `outputs` into a folder in `home` and open it. The folder is removed."""
    with opened_part(cut_out(model, inputs, outputs), [*inputs, *model.graph.inputs], outputs, home, context) as part:
        yield part


@contextmanager
def opened_part(
    part: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], home: Path, context: Context
) -> Iterator[Opened]:
    """As `opened`, for a sub-graph that was cut out before."""
    taken = {value.name for value in part.graph.inputs}
    on_processor = context.target.device is None or context.target.device.kind == "cpu"  # see Context.open
    if not context.target.here:
        norms_apart(part.graph)
    weights = take_out(part) if on_processor else Weights({}, ())
    package = OnnxPackage({ONLY_PART: part})
    with disk_errors(home):
        folder = Path(tempfile.mkdtemp(prefix="graph-", dir=home))
    try:
        # The caller reports progress over the segments, so writing one segment is not reported as a step.
        write_package(package, folder, dataclasses.replace(context, progress=Progress()))
        matrices = weights.made(context.threads)
        facts = {"logits": "all", "packaged": "no"}
        with context.open(Model.single("onnx", folder, facts, package)) as session:
            yield Opened(
                session,
                [value for value in dict.fromkeys(inputs) if value.name in taken],
                [value.name or "" for value in outputs],
                matrices,
                weights.look_ups,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def distinct(values: Sequence[ir.Value]) -> list[ir.Value]:
    """The values before tokens were dropped, without repetitions."""
    return list(dict.fromkeys(map(whole, values)))
