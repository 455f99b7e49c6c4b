"""The pass `quantize-gptq`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata

from threadpoolctl import threadpool_limits

from drupe.api import Context, Model, ModelError, Shape, UsageError, disk_errors, key_of
from drupe_blockquant import GptqFactor, gptq_factor
from drupe_layerwise import LayerByLayer, Segment
from drupe_nbits import Rewriter, Site, find_sites, is_quantized, remove_unused
from drupe_onnx import Expression, ExternalTensor, OnnxKind, OnnxPackage, ir
from drupe_onnx.package import FLOAT_MATRICES
from drupe_quant_gptq.calibration import Rows, groups_of, refuse_non_finite
from drupe_quant_gptq.finished import Finished, Parts
from drupe_quant_gptq.hessian import Hessian
from drupe_quant_gptq.schemes import Choice, QuantizeGptqConfig, choices
from drupe_quant_gptq.solving import Solver
from drupe_text import CalibratingPass

LEAST_TOKENS = 4
"""A matrix of K columns wants at least K / LEAST_TOKENS tokens: below that, most of its Hessian is damping."""
SHARED_DAMPING = 0.3
"""Damping for a head whose matrix tokens are looked up in: an error there counts alike in each column, and as much
against the head's as trained models show (`drupe_mixed_precision.losses.BY_ROLE`)."""


class QuantizeGptq(CalibratingPass):
    """Puts weights that GPTQ has found in the place of float ones, and quantizes the others without data."""

    name = "quantize-gptq"
    summary = "quantizes weights by GPTQ, block by block, with text to calibrate on"
    revision = 5
    Config = QuantizeGptqConfig
    # A Hessian says all of a channel that its weight does, and more.
    requires = Shape("onnx", {"weights": "float", "channels": "not weighed"})
    ensures = Shape("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant", "drupe-layerwise", "drupe-nbits", "numpy")

    def run(self, model: Model, config: QuantizeGptqConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        sequences = self.sequences(model, config, context)
        finished = Finished(self._key(model, config, context))
        context.scratch.mkdir(parents=True, exist_ok=True)
        for name, component in package.components.items():
            Quantizing(name, component, config, context).run(sequences, finished)
        finished.clear()
        return model

    def preview(self, model: Model, config: QuantizeGptqConfig, context: Context) -> Model:
        """The same schemes and bytes, without levels."""
        package: OnnxPackage = model.payload
        tokens = sum(map(len, self.sequences(model, config, context)))
        for name, component in package.components.items():
            quantizing = Quantizing(name, component, config, context)
            quantizing.refuse_few(tokens)
            quantizing.rewrite_unsolved()
        return model

    def _key(self, model: Model, config: QuantizeGptqConfig, context: Context) -> str:
        """All that decides the result."""
        return key_of(
            {
                "model": OnnxKind().fingerprint(model),
                "revision": self.revision,
                "config": config.model_dump(),
                "libraries": {name: metadata.version(name) for name in self.libraries},
                "target": (context.target.provider, context.target.runtime_version, context.target.here),
            }
        )


class Quantizing:
    """One graph on its way: segment after segment, and in each, group after group of sites that read one value.

    True-sequential: each group is calibrated with what comes out of the groups before it when they are quantized.
    """

    def __init__(self, name: str, model: ir.Model, config: QuantizeGptqConfig, context: Context) -> None:
        capabilities = context.target.capabilities
        self._name, self._model, self._config, self._context = name, model, config, context
        self._rewriter = Rewriter(model.graph, capabilities, config.accuracy_level)
        self._choices = {each.site.node: each for each in choices(find_sites(model.graph), config, capabilities)}
        self._shared: dict[Expression, Sequence[ExternalTensor]] = {}
        """Solved parts of matrices that several sites share."""

    def run(self, sequences: Sequence[Sequence[int]], finished: Finished) -> None:
        """Quantize the graph in place. finished: where solved segments wait. Raises DrupeError and Cancelled."""
        self.refuse_few(sum(map(len, sequences)))
        if any(each.by_gptq for each in self._choices.values()):
            self._solve_shared(sequences, finished)
            self._calibrate(sequences, finished)
            self._finish()
        else:
            self.rewrite_unsolved()

    def refuse_few(self, tokens: int) -> None:
        """Raise UsageError for fewer tokens than the widest matrix wants.

        Whichever matrices get 8 bits, and so need no text: that may not be known before there is a budget to choose by.
        """
        if not any(each.by_gptq for each in self._choices.values()):
            return
        columns = max(each.site.rows.shape[1] for each in self._choices.values() if each.scheme is not None)
        wanted = -(-columns // LEAST_TOKENS)
        if tokens < wanted:
            sequences = -(-wanted // self._config.calibration_length)
            raise UsageError(
                f"{tokens} tokens are too few to calibrate matrices of {columns} columns: {wanted} are wanted",
                where=f"calibration_sequences = {self._config.calibration_sequences}",
                cure=f"--calibration-sequences {sequences}",
            )

    def rewrite_unsolved(self) -> None:
        """Put every matrix under its scheme, with levels that the writer finds."""
        for each in self._choices.values():
            self._rewrite(each, {})
        self._finish()

    def _finish(self) -> None:
        self._refuse_unquantized()
        remove_unused(self._model.graph)
        if kept := [each.site.name for each in self._choices.values() if each.scheme is None]:
            self._model.metadata_props[FLOAT_MATRICES] = json.dumps(kept)

    def _calibrate(self, sequences: Sequence[Sequence[int]], finished: Finished) -> None:
        """Quantize segment after segment, each for what comes out of the quantized ones before it."""
        with LayerByLayer(self._model, sequences, self._context) as layers:
            blocks = sum(segment.block is not None for segment in layers.segments)
            with self._context.progress.task("GPTQ", blocks, "blocks") as progress:
                for segment in layers.segments:
                    self._quantize(segment, layers, finished)
                    if segment is not layers.segments[-1]:
                        layers.advance(segment)
                    progress.advance(segment.block is not None)

    def _solve_shared(self, sequences: Sequence[Sequence[int]], finished: Finished) -> None:
        """Solve what a head shares with a look-up, by what goes into the head before anything is quantized.

        That is, before the blocks: what is looked up in the quantized matrix is what they are calibrated with.
        """
        heads = [
            each for each in self._choices.values() if each.by_gptq and each.is_shared and not each.site.is_look_up
        ]
        if not heads:
            return
        label = f"{self._name}-shared"
        path = self._context.scratch / f"{label}.gptq"
        found = finished.find(label, path)
        if found is None:
            with self._context.progress.task("GPTQ of the head", len(heads), "matrices") as progress:
                found = self._solve_before_blocks(heads, sequences, Solver(path, self._context))
                progress.advance(len(heads))
            with disk_errors(path):
                finished.keep(label, path, found)
        self._shared = {each.site.rows: found[_key_of(each)] for each in heads}

    def _solve_before_blocks(
        self, heads: Sequence[Choice], sequences: Sequence[Sequence[int]], solver: Solver
    ) -> Parts:
        by_input: dict[ir.Value, list[Choice]] = {}
        for head in heads:
            by_input.setdefault(head.site.activations, []).append(head)
        found: dict[str, Sequence[ExternalTensor]] = {}
        with LayerByLayer(self._model, sequences, self._context) as layers:
            for members in by_input.values():
                sites = [each.site for each in members]
                segment = next(each for each in layers.segments if sites[0].node in each.nodes)
                factor = self._factor(sites, segment, layers, SHARED_DAMPING)
                found.update(self._solve_all(members, factor, solver))
        return found

    def _quantize(self, segment: Segment, layers: LayerByLayer, finished: Finished) -> None:
        """Quantize the sites of one segment, with what is finished of it where it is."""
        groups = [
            [self._choices[site.node] for site in group]
            for group in groups_of(segment, [each.site for each in self._choices.values()])
        ]
        label = f"{self._name}-{segment.index}"
        path = self._context.scratch / f"{label}.gptq"
        path.unlink(missing_ok=True)
        found = finished.find(label, path)
        solved: dict[str, Sequence[ExternalTensor]] = {}
        for group in groups:
            parts = found if found is not None else self._solve(group, segment, layers, Solver(path, self._context))
            solved.update(parts)
            for each in group:
                self._rewrite(each, parts)
        if found is None and solved:
            with disk_errors(path):
                finished.keep(label, path, solved)

    def _solve(self, group: Sequence[Choice], segment: Segment, layers: LayerByLayer, solver: Solver) -> Parts:
        """Those of a group's sites that GPTQ is for."""
        members = [each for each in group if each.by_gptq and not each.is_shared]
        if not members:
            return {}
        factor = self._factor([each.site for each in members], segment, layers, self._config.damping)
        return self._solve_all(members, factor, solver)

    def _solve_all(self, members: Sequence[Choice], factor: GptqFactor, solver: Solver) -> Parts:
        found = {}
        for each in members:
            assert each.scheme is not None
            with disk_errors(solver.path):
                found[_key_of(each)] = solver.solve(each.site, each.scheme, factor)
        return found

    def _factor(self, sites: Sequence[Site], segment: Segment, layers: LayerByLayer, damping: float) -> GptqFactor:
        """What GPTQ needs of the inputs that some sites share."""
        threads = self._context.threads
        hessian = Hessian(sites[0].rows.shape[1], threads)

        def add(_: str, rows: Rows) -> None:
            refuse_non_finite(rows, sites)
            hessian.add(rows)

        with threadpool_limits(1, "blas"):
            layers.collect(segment, {sites[0].activations.name or ""}, add, settled=True)
            return gptq_factor(hessian.whole(), damping, threads)

    def _rewrite(self, choice: Choice, parts: Parts) -> None:
        if choice.scheme is None:
            self._rewriter.keep(choice.site)
        else:
            ready = self._shared.get(choice.site.rows) or parts.get(_key_of(choice))
            self._rewriter.rewrite(choice.site, choice.scheme, ready)

    def _refuse_unquantized(self) -> None:
        if not is_quantized(self._model.graph):
            raise ModelError(
                f"'{self._context.target.provider}' serves none of the model's matrices quantized",
                cure="choose a floating-point --precision for it",
            )


def _key_of(choice: Choice) -> str:
    """The name that a site's parts are kept under; a weight's may be another's, too."""
    return choice.site.node.name or choice.site.name
