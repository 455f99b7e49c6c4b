"""Sub-graphs: a part of a decoder's graph as a separate model, and that model open in its runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from drupe.api import ONLY_PART, Context, Model, Progress, Record, Session, replace
from drupe_files import disk_errors
from drupe_layerwise.attention import norms_apart
from drupe_layerwise.expert_groups import Groups, LargeExperts, large_experts
from drupe_layerwise.segments import node_reads, nodes_behind, whole
from drupe_layerwise.weights import LookUp, Weights, take_out
from drupe_onnx import OnnxPackage, all_logits, ir, write_package


class Opened(Protocol):
    """An open sub-graph."""

    @property
    def inputs(self) -> Sequence[ir.Value]:
        """The values of the whole graph that it takes."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The outputs by name."""


class _InOne(Record):
    """A sub-graph that is one graph. outputs: the names of its outputs.

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


class _AroundExperts(Record):
    """A sub-graph in two parts, with large experts between them that are run in groups.

    before, after: the two parts; None where nothing is asked of them. x, logits, result: the names of what the experts
    read and make. outputs: the names of the outputs.
    """

    before: Opened | None
    after: Opened | None
    groups: Groups
    experts: Session
    x: str
    logits: str
    result: str
    inputs: Sequence[ir.Value]
    outputs: Sequence[str]
    threads: int

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The outputs by name."""
        known = dict(inputs)
        if self.before is not None:
            known |= self.before.run(_for(self.before, inputs))
        known[self.result] = self.groups.run(self.experts, known[self.x], known[self.logits], self.threads)
        if self.after is not None:
            known |= self.after.run(_for(self.after, known))
        return {name: known[name] for name in self.outputs}


def _for(part: Opened, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those of the values that a part takes."""
    return {value.name or "": values[value.name or ""] for value in part.inputs}


def cut_out(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The sub-graph that computes `outputs` from `inputs`, for all tokens. Unused `inputs` are dropped.

    The weights are shared. Shapes of inner values are left out, because those for the last token alone would be wrong.
    """
    asked = [*dict.fromkeys([*inputs, *_required(model.graph)])]
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


def _required(graph: ir.Graph) -> list[ir.Value]:
    """The inputs of a graph without those that have a default, such as matrices of adapters."""
    return [value for value in graph.inputs if not value.is_initializer()]


def _drop_unused_inputs(graph: ir.Graph) -> None:
    used = [value for value in graph.inputs if value.uses()]
    graph.inputs.clear()
    graph.inputs.extend(used)


@contextmanager
def opened(
    model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], home: Path, context: Context
) -> Iterator[Opened]:
    """Write the sub-graph from `inputs` to `outputs` into a folder in `home` and open it. The folder is removed."""
    given = [*inputs, *_required(model.graph)]
    with opened_part(cut_out(model, inputs, outputs), given, outputs, home, context) as part:
        yield part


@contextmanager
def opened_part(
    part: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], home: Path, context: Context
) -> Iterator[Opened]:
    """As `opened`, for a sub-graph that was cut out before. On a processor, large experts are run in groups."""
    large = large_experts(part.graph, context.memory_budget) if _on_processor(context) else None
    if large is not None:
        with _opened_around(part, large, inputs, outputs, home, context) as around:
            yield around
        return
    taken = {value.name for value in part.graph.inputs}
    if not context.target.here:
        norms_apart(part.graph)
    weights = take_out(part) if _on_processor(context) else Weights({}, ())
    with _session(part, home, context) as session:
        yield _InOne(
            session,
            [value for value in dict.fromkeys(inputs) if value.name in taken],
            [value.name or "" for value in outputs],
            weights.made(context.threads),
            weights.look_ups,
        )


@contextmanager
def _opened_around(
    part: ir.Model,
    large: LargeExperts,
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    home: Path,
    context: Context,
) -> Iterator[Opened]:
    """Open a sub-graph in two parts around its first large experts; the second part may have more of them."""
    x, logits = (value for value in large.node.inputs[:2] if value is not None)
    result = large.node.outputs[0]
    behind = nodes_behind([x, logits])
    own = {value.name or "": value for value in part.graph.outputs}
    asked = [own[value.name or ""] for value in outputs]
    rest = [node for node in part.graph if node not in behind and node is not large.node]
    read = [value for node in rest for value in node_reads(node) if value.producer() in behind]
    early = [value for value in asked if value.producer() in behind]
    late = [value for value in asked if value.producer() not in behind and value is not result]
    made_here = [value for value in (x, logits) if value.producer() is not None]  # others are inputs, so known already
    crossing = [*dict.fromkeys([*made_here, *read, *early])]
    groups = Groups.of(large, context.memory_budget)
    taken = {value.name for value in part.graph.inputs}
    with ExitStack() as stack:
        given = part.graph.inputs
        before = after = None
        if crossing:
            first = cut_out(part, [], crossing)
            before = stack.enter_context(opened_part(first, given, crossing, home, context))
        if late:
            between = [result, *crossing, *given]
            second = cut_out(part, between, late)
            after = stack.enter_context(opened_part(second, between, late, home, context))
        yield _AroundExperts(
            before,
            after,
            groups,
            stack.enter_context(_session(groups.graph(), home, context)),
            x.name or "",
            logits.name or "",
            result.name or "",
            [value for value in dict.fromkeys(inputs) if value.name in taken],
            [value.name or "" for value in outputs],
            context.threads,
        )


@contextmanager
def _session(part: ir.Model, home: Path, context: Context) -> Iterator[Session]:
    """Write a graph into a folder in `home` and open it. The folder is removed."""
    package = OnnxPackage({ONLY_PART: part})
    with disk_errors(home):
        folder = Path(tempfile.mkdtemp(prefix="graph-", dir=home))
    try:
        # The caller reports progress over the segments, so writing one segment is not reported as a step.
        write_package(package, folder, replace(context, progress=Progress()))
        facts = {"logits": "all", "packaged": "no"}
        with context.open(Model.single("onnx", folder, facts, package)) as session:
            yield session
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on_processor(context: Context) -> bool:
    """Whether graphs run on a processor; see Context.open."""
    return context.target.device is None or context.target.device.kind == "cpu"


def distinct(values: Sequence[ir.Value]) -> list[ir.Value]:
    """The values before tokens were dropped, without repetitions."""
    return list(dict.fromkeys(map(whole, values)))
