"""The evaluator `outputs`: how close a graph's outputs are to those of its source, on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import (
    ONLY_PART,
    CheckFailed,
    Context,
    Evaluator,
    EvaluatorConfig,
    Metric,
    Model,
    ModelError,
    Session,
    UsageError,
)
from drupe_onnx import OnnxPackage, write_package
from drupe_onnx.elements import ELEMENTS
from drupe_onnx_models.graphs import outlines_of, run_on_random

UNRELATED = 0.5
"""The cosine similarity with the source below which a package counts as broken."""

TOLD = 8
"""How many outputs get their own metrics; if there are more, such as a decoder's caches, the worst are reported."""

Arrays = Mapping[str, NDArray[Any]]


class OutputsConfig(EvaluatorConfig):
    """How many inputs are drawn, and how close the outputs have to be."""

    samples: int = Field(4, ge=1, le=10_000, description="how many sets of random inputs")
    seed: int = Field(0, ge=0, description="seed of the random inputs")
    least_similarity: float | None = Field(None, ge=-1, le=1, description="cosine similarity below which it fails")


class Outputs(Evaluator):
    """For each output, its cosine similarity with the source's, and the largest difference relative to its values.

    Outputs that are not floats are compared element by element.
    """

    name = "outputs"
    summary = "cosine similarity and largest difference of each output, against the source's on random inputs"
    Config: ClassVar[type[EvaluatorConfig]] = OutputsConfig
    verifying: ClassVar[Mapping[str, Any]] = {"least_similarity": UNRELATED}

    def evaluate(
        self, model: Model, reference: Model | None, config: OutputsConfig, context: Context
    ) -> Sequence[Metric]:
        """The models run one after the other, so only one of them is in memory."""
        if reference is None:
            raise UsageError("the evaluator 'outputs' needs a model to compare with", cure="--against MODEL")
        with context.progress.task("comparing outputs", 2 * config.samples, "run") as progress:
            given: list[dict[str, Arrays]] = []
            measured: list[dict[str, Arrays]] = []
            with context.open(model) as session:
                for seed in range(config.seed, config.seed + config.samples):
                    context.stop_if_cancelled()
                    runs = {
                        role: run_on_random(session, role, model, outline, seed)
                        for role, outline in outlines_of(model).items()
                    }
                    given.append({role: inputs for role, (inputs, _) in runs.items()})
                    measured.append({role: outputs for role, (_, outputs) in runs.items()})
                    progress.advance(1)
            tallies: dict[str, Tally] = {}
            source = _on_disk(reference, context)
            with context.open(source) as session:
                for inputs, outputs in zip(given, measured, strict=True):
                    context.stop_if_cancelled()
                    for role, wanted in _run(session, source, inputs).items():
                        _compare(role, outputs[role], wanted, tallies)
                    progress.advance(1)
        metrics = list(_metrics(tallies))
        _refuse_unrelated(tallies, config.least_similarity)
        return metrics


def _on_disk(reference: Model, context: Context) -> Model:
    """A reference that can be opened: a reference in memory is written to the scratch folder."""
    package = reference.payload
    if not isinstance(package, OnnxPackage):
        return reference
    folder = context.scratch / "source"
    folder.mkdir(parents=True)
    write_package(OnnxPackage(package.components), folder, context)
    return Model("onnx", folder, reference.parts, task=reference.task)


def _run(session: Session, source: Model, inputs: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """The source's outputs for the inputs of the package, in the types that the source declares."""
    results: dict[str, Arrays] = {}
    for role, outline in outlines_of(source).items():
        if role not in inputs:
            raise ModelError(f"the source has a part '{role}', but the package has not", where=source.location)
        types = {port.name: ELEMENTS[port.element][0] for port in outline.inputs}
        if types.keys() != inputs[role].keys():
            raise ModelError(
                f"the package has the inputs {', '.join(inputs[role])}, but the source has {', '.join(types)}",
                where=source.location,
                cure="compare the package with the model that it was made from",
            )
        fed = {name: array.astype(types[name], copy=False) for name, array in inputs[role].items()}
        results[role] = session.run(fed, part=role)
    return results


class Tally:
    """Sums for one output over the samples, in float64."""

    def __init__(self) -> None:
        self.dot = self.squares = self.wanted_squares = 0.0
        self.largest_difference = self.largest = 0.0
        self.equal = self.elements = 0
        self.samples = self.alike = 0
        self.floats = False

    def add(self, values: NDArray[Any], wanted: NDArray[Any]) -> None:
        """Add a sample. Different shapes are counted and not compared further, because they depend on the values."""
        self.samples += 1
        if values.shape != wanted.shape:
            return
        self.alike += 1
        self.floats = wanted.dtype.kind == "f"
        self.equal += int((values == wanted).sum())
        self.elements += wanted.size
        if self.floats and wanted.size:
            ours, theirs = values.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
            self.dot += float(ours @ theirs)
            self.squares += float(ours @ ours)
            self.wanted_squares += float(theirs @ theirs)
            self.largest_difference = max(self.largest_difference, float(np.abs(ours - theirs).max()))
            self.largest = max(self.largest, float(np.abs(theirs).max()))

    @property
    def similarity(self) -> float:
        """The cosine of the angle between the values and the source's values; 1 where all are zeros."""
        lengths = float(np.sqrt(self.squares * self.wanted_squares))
        return min(1.0, self.dot / lengths) if lengths else float(self.squares == self.wanted_squares)

    @property
    def difference(self) -> float:
        """The largest difference divided by the largest value of the source."""
        return self.largest_difference / self.largest if self.largest else self.largest_difference


def _compare(role: str, outputs: Arrays, wanted: Arrays, tallies: dict[str, Tally]) -> None:
    for name, theirs in wanted.items():
        if name not in outputs:
            raise ModelError(f"the package has no output '{name}', which the source has")
        label = name if role == ONLY_PART else f"{role}.{name}"
        tallies.setdefault(label, Tally()).add(np.asarray(outputs[name]), np.asarray(theirs))


def _metrics(tallies: Mapping[str, Tally]) -> Iterator[Metric]:
    """The metrics: the worst of all outputs, and those of each of a few outputs."""
    floats = {name: tally for name, tally in tallies.items() if tally.floats}
    if floats:
        yield Metric("cosine_similarity", min(each.similarity for each in floats.values()), "", "higher")
        yield Metric("relative_difference", max(each.difference for each in floats.values()), "", "lower")
    several = 1 < len(tallies) <= TOLD
    for name, tally in tallies.items():
        if tally.floats and several:
            yield Metric(f"cosine_similarity:{name}", tally.similarity, "", "higher")
            yield Metric(f"relative_difference:{name}", tally.difference, "", "lower")
        elif not tally.floats and tally.elements:
            yield Metric(f"equal:{name}", tally.equal / tally.elements, "of values", "higher")
        if tally.alike < tally.samples:
            yield Metric(f"same_shape:{name}", tally.alike / tally.samples, "of samples", "higher")


def _refuse_unrelated(tallies: Mapping[str, Tally], least: float | None) -> None:
    for name, tally in tallies.items():
        if least is not None and tally.floats and tally.similarity < least:
            raise CheckFailed(
                f"the output '{name}' has a cosine similarity of {tally.similarity:.3g} with the source's, "
                f"below the limit of {least:g}",
                cure="give the package more bits: a higher --precision",
            )
