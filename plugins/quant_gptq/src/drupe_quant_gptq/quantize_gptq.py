"""The pass `quantize-gptq`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from drupe.api import Cancelled, Context, Form, Model, ModelError, Notice, UsageError, counted
from drupe_blockquant import GptqFactor, gptq_factor
from drupe_files import disk_errors, identity_of, key_of
from drupe_layerwise import LayerByLayer, RoutedRows, Segment
from drupe_nbits import (
    Rewriter,
    Site,
    find_sites,
    finish,
    is_quantized,
    keep_experts,
    kept_levels,
    nothing_quantized,
    quantize_experts,
    refuse_overruled,
)
from drupe_onnx import Expression, ExternalTensor, Files, OnnxKind, OnnxPackage, capabilities_of, ir
from drupe_quant_gptq.calibration import Rows, groups_of, refuse_non_finite
from drupe_quant_gptq.expert_solver import ExpertSolver
from drupe_quant_gptq.experts import ExpertChoice, expert_choices, expert_notices
from drupe_quant_gptq.finished_segments import Finished, Parts
from drupe_quant_gptq.hessian import Float32, Hessian, HessianInFile
from drupe_quant_gptq.matrix_solver import Solver
from drupe_quant_gptq.schemes import Choice, QuantizeGptqConfig, choices, reason, tokens_for
from drupe_text import CalibratingPass

SHARED = "shared"
"""The key of solved matrices that several sites share."""
SHARED_DAMPING = 0.3
"""Damping for a tied head. An error in a looked-up row counts the same in each column, which damping expresses. The
value is the ratio of both errors in trained models (`drupe_mixed_precision.losses.BY_ROLE`)."""
UP, DOWN, REACHED = "up", "down", "reached"
"""The keys of the parts of experts: their matrices, and how many rows each expert runs."""


class QuantizeGptq(CalibratingPass):
    """Replaces float weights by weights that GPTQ has found, and quantizes the other matrices without data."""

    name = "quantize-gptq"
    summary = "quantizes weights by GPTQ, block by block, calibrated on a text"
    revision = 9
    Config = QuantizeGptqConfig
    # Channel weights are refused: a Hessian contains all that they say, and more.
    requires = Form("onnx", {"weights": ("float", "mixed"), "channels": "not weighed"})
    ensures = Form("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant", "drupe-layerwise", "drupe-nbits", "numpy")

    def refuse_whole(self, model: Model, config: QuantizeGptqConfig, context: Context) -> None:
        """Raise an error for a model in which no matrix product of any part would be quantized."""
        package: OnnxPackage = model.payload
        capabilities = capabilities_of(context.target)
        sites = [(component.graph, find_sites(component.graph)) for component in package.components.values()]
        refuse_overruled((site for _, in_graph in sites for site in in_graph), config)
        for graph, in_graph in sites:
            found = choices(in_graph, config, capabilities)
            if is_quantized(graph) or any(each.scheme and not each.site.is_look_up for each in found):
                return
        products = [site for _, in_graph in sites for site in in_graph if not site.is_look_up]
        if not products:
            raise ModelError("the model has no matrix product with float weights to quantize", where=model.location)
        raise nothing_quantized(products[0], reason(products[0], config, capabilities), context.target)

    def run(self, model: Model, config: QuantizeGptqConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        package.keep_sources()
        sequences = self.sequences(model, config, context)
        finished = Finished(self._key(model, config, context))
        context.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="gptq-", dir=context.scratch))
        noticed = _noticed(model, config)
        quantizing = Quantizing(package.component, config, context)
        quantizing.run(sequences, finished, folder)
        finished.clear()
        return noticed.noticed(*quantizing.notices())

    def preview(self, model: Model, config: QuantizeGptqConfig, context: Context) -> Model:
        """The model with the same schemes and bytes, without levels."""
        package: OnnxPackage = model.payload
        tokens = sum(map(len, self.sequences(model, config, context)))
        quantizing = Quantizing(package.component, config, context)
        quantizing.refuse_few(tokens)
        noticed = _noticed(model, config)
        quantizing.rewrite_unsolved()
        return noticed.noticed(*quantizing.notices())

    def _key(self, model: Model, config: QuantizeGptqConfig, context: Context) -> str:
        """A digest of everything that decides the result."""
        return key_of({"model": OnnxKind().fingerprint(model), **identity_of(self, config, context.target)})


def _noticed(model: Model, config: QuantizeGptqConfig) -> Model:
    """The model, with a notice if some of its weights are quantized already."""
    package: OnnxPackage = model.payload
    graphs = [component.graph for component in package.components.values()]
    return model.noticed(*(notice for graph in graphs for notice in kept_levels(graph, config.bits)))


class Quantizing:
    """Quantizes one graph: segment after segment, and in each, the groups of sites that read one value.

    It is true-sequential: each group is calibrated on the outputs of the quantized groups before it.
    """

    def __init__(self, model: ir.Model, config: QuantizeGptqConfig, context: Context) -> None:
        capabilities = capabilities_of(context.target)
        self._model, self._config, self._context = model, config, context
        self._rewriter = Rewriter(model.graph, capabilities, config.accuracy_level)
        self._capabilities = capabilities
        self._choices = {each.site.node: each for each in choices(find_sites(model.graph), config, capabilities)}
        self._experts = {each.site.node: each for each in expert_choices(model.graph, config, context.target)}
        self._shared: dict[Expression, Sequence[ExternalTensor]] = {}
        """Solved parts of matrices that several sites share."""
        self._reached: dict[ir.Node, NDArray[np.int64]] = {}
        """How many rows each expert of a node runs."""

    def run(self, sequences: Sequence[Sequence[int]], finished: Finished, folder: Path) -> None:
        """Quantize the graph in place. Raises DrupeError and Cancelled.

        finished: keeps solved segments. folder: for the files of solved matrices, which the graph reads.
        """
        self.refuse_few(sum(map(len, sequences)))
        if any(each.by_gptq for each in self._every):
            self._solve_shared(sequences, finished, folder)
            self._calibrate(sequences, finished, folder)
            self._finish()
        else:
            self.rewrite_unsolved()

    def refuse_few(self, tokens: int) -> None:
        """Raise UsageError for fewer tokens than the widest matrix needs.

        Matrices that will get 8 bits need no text, but they count as well: they may not be known yet.
        """
        if not any(each.by_gptq for each in self._choices.values()):
            return
        columns = max(each.site.rows.shape[1] for each in self._choices.values() if each.scheme is not None)
        wanted = tokens_for(columns)
        if tokens < wanted:
            sequences = -(-wanted // self._config.calibration_length)
            raise UsageError(
                f"{counted(tokens, 'token')} {'is' if tokens == 1 else 'are'} too few to calibrate matrices of "
                f"{columns} columns: {wanted} are needed",
                where=f"calibration_sequences = {self._config.calibration_sequences}",
                cure=f"--calibration-sequences {sequences}",
            )

    def notices(self) -> list[Notice]:
        """What a user should know of the experts. Call it after the graph was quantized."""
        return expert_notices(self._experts.values(), self._reached)

    def rewrite_unsolved(self) -> None:
        """Quantize every matrix by its scheme, with levels that the writer finds."""
        for each in self._choices.values():
            self._rewrite(each, {})
        for experts in self._experts.values():
            self._rewrite_experts(experts, {})
        self._finish()

    def _finish(self) -> None:
        finish(self._model, [each.site for each in self._every if each.scheme is None])

    @property
    def _every(self) -> list[Choice | ExpertChoice]:
        return [*self._choices.values(), *self._experts.values()]

    def _calibrate(self, sequences: Sequence[Sequence[int]], finished: Finished, folder: Path) -> None:
        """Quantize segment after segment, each for the outputs of the quantized segments before it."""
        with LayerByLayer(self._model, sequences, self._context) as layers:
            blocks = [segment for segment in layers.segments if segment.block is not None]
            kept = _count_kept(finished, blocks)
            resumed = f", {kept} of {len(blocks)} blocks were found in the cache" if kept else ""
            with (
                _told_how_to_go_on(finished, blocks),
                self._context.progress.task(f"GPTQ{resumed}", len(blocks), "block") as progress,
            ):
                for segment in layers.segments:
                    self._quantize(segment, layers, finished, folder)
                    if segment is not layers.segments[-1]:
                        layers.advance(segment)
                    progress.advance(segment.block is not None)

    def _solve_shared(self, sequences: Sequence[Sequence[int]], finished: Finished, folder: Path) -> None:
        """Solve matrices of several sites, on the inputs of all their products in the unquantized model.

        These are tied heads, and the matrices of blocks that layers share. This comes before the blocks, so the blocks
        are calibrated with the quantized matrices.
        """
        shared = self._shared_products()
        if not shared:
            return
        path = folder / f"{SHARED}.gptq"
        found = finished.find(SHARED, path)
        if found is None:
            with self._context.progress.task("GPTQ of shared matrices", len(shared), "matrix") as progress:
                found = {}
                for solved in self._solve_before_blocks(list(shared.values()), sequences, Solver(path, self._context)):
                    found |= solved
                    progress.advance(len(solved))
            finished.keep(SHARED, path, found)
        self._shared = {rows: found[_key_of(uses[0])] for rows, uses in shared.items()}

    def _shared_products(self) -> dict[Expression, list[Choice]]:
        """The products with each matrix that several sites share and GPTQ solves, in the graph's order."""
        found: dict[Expression, list[Choice]] = {}
        for each in self._choices.values():
            if each.by_gptq and each.is_shared and not each.site.is_look_up:
                found.setdefault(each.site.rows, []).append(each)
        return found

    def _solve_before_blocks(
        self, shared: Sequence[Sequence[Choice]], sequences: Sequence[Sequence[int]], solver: Solver
    ) -> Iterator[Parts]:
        """The parts of matrices with the same inputs, after another. shared: the products with each matrix.

        The Hessians of all products are summed. Only one is held at a time.
        """
        by_inputs: dict[tuple[ir.Value, ...], list[Sequence[Choice]]] = {}
        for uses in shared:
            by_inputs.setdefault(tuple(each.site.activations for each in uses), []).append(uses)
        groups = list(by_inputs.values())
        with LayerByLayer(self._model, sequences, self._context) as layers:
            for segment, use, number in _visits(groups, layers.segments):
                members = [uses[0] for uses in groups[number]]
                hessian = self._hessian(use.site, segment, layers)
                kept = HessianInFile(solver.path.with_name(f"{SHARED}-{number}.npy"))
                with disk_errors(kept.path):
                    if use is not groups[number][0][-1]:
                        kept.add(hessian)
                        continue
                    hessian = kept.plus(hessian)
                    kept.path.unlink(missing_ok=True)
                damping = SHARED_DAMPING if self._is_looked_up(use) else self._config.damping
                yield self._solve_all(members, self._factored(hessian, damping), solver)

    def _is_looked_up(self, choice: Choice) -> bool:
        """Whether rows of the matrix are looked up as well."""
        return any(each.site.is_look_up and each.site.rows == choice.site.rows for each in self._choices.values())

    def _quantize(self, segment: Segment, layers: LayerByLayer, finished: Finished, folder: Path) -> None:
        """Quantize the sites of one segment, with its finished parts if there are any."""
        label = str(segment.index)
        path = folder / f"{label}.gptq"
        found, solver = finished.find(label, path), Solver(path, self._context)
        solved: dict[str, Sequence[ExternalTensor]] = {}
        for step in self._steps(segment):
            if isinstance(step, ExpertChoice):
                parts = self._solve_experts(step, segment, layers, solver) if found is None else found
                self._rewrite_experts(step, parts)
            else:
                parts = self._solve(step, segment, layers, solver) if found is None else found
                for each in step:
                    self._rewrite(each, parts)
            solved.update(parts)
        if found is None and solved:
            finished.keep(label, path, solved)

    def _steps(self, segment: Segment) -> list[list[Choice] | ExpertChoice]:
        """What is solved together in a segment, in the graph's order: groups with one input, and nodes with experts."""
        nodes = segment.nodes
        groups = groups_of(segment, [each.site for each in self._choices.values()])
        found: dict[ir.Node, list[Choice] | ExpertChoice] = {
            group[0].node: [self._choices[site.node] for site in group] for group in groups
        }
        found |= {node: self._experts[node] for node in nodes if node in self._experts}
        return [found[node] for node in nodes if node in found]

    def _solve(self, group: Sequence[Choice], segment: Segment, layers: LayerByLayer, solver: Solver) -> Parts:
        """The sites of a group whose levels GPTQ finds."""
        members = [each for each in group if each.by_gptq and not each.is_shared]
        if not members:
            return {}
        hessian = self._hessian(members[0].site, segment, layers)
        return self._solve_all(members, self._factored(hessian, self._config.damping), solver)

    def _solve_experts(
        self, choice: ExpertChoice, segment: Segment, layers: LayerByLayer, solver: Solver
    ) -> dict[str, Sequence[ExternalTensor]]:
        """The parts of the experts of a node, and how many rows each of them runs."""
        if choice.scheme is None or choice.routing is None or choice.activation is None:
            return {}
        site, name = choice.site, choice.site.name
        rows = RoutedRows(layers, segment, site.node, choice.routing)
        up, down = ExpertSolver(site, choice.scheme, choice.activation, rows, self._config.damping, solver).solve()
        with disk_errors(solver.path):
            reached = solver.keep("reached", rows.reached)
        return {f"{name}/{UP}": up, f"{name}/{DOWN}": down, f"{name}/{REACHED}": [reached]}

    def _solve_all(self, members: Sequence[Choice], factor: GptqFactor, solver: Solver) -> Parts:
        found = {}
        for each in members:
            assert each.scheme is not None
            with disk_errors(solver.path):
                found[_key_of(each)] = solver.solve(each.site, each.scheme, factor)
        return found

    def _hessian(self, site: Site, segment: Segment, layers: LayerByLayer) -> Float32:
        """The Hessian of what the matrix of a site is multiplied with."""
        hessian = Hessian(site.rows.shape[1], self._context.threads)

        def add(_: str, rows: Rows) -> None:
            refuse_non_finite(rows, site.name)
            hessian.add(rows)

        with threadpool_limits(1, "blas"):
            layers.collect(segment, {site.activations.name or ""}, add, settled=True)
            return hessian.whole()

    def _factored(self, hessian: Float32, damping: float) -> GptqFactor:
        with threadpool_limits(1, "blas"):
            return gptq_factor(hessian, damping, self._context.threads)

    def _rewrite(self, choice: Choice, parts: Parts) -> None:
        if choice.scheme is None:
            self._rewriter.keep(choice.site)
        else:
            ready = self._shared.get(choice.site.rows) or parts.get(_key_of(choice))
            self._rewriter.rewrite(choice.site, choice.scheme, ready)

    def _rewrite_experts(self, choice: ExpertChoice, parts: Parts) -> None:
        site, name = choice.site, choice.site.name
        if choice.scheme is None:
            keep_experts(self._model.graph, site)
            return
        ready = [parts.get(f"{name}/{each}") or None for each in (UP, DOWN)]
        quantize_experts(self._model.graph, site, choice.scheme, self._capabilities, ready)
        if counts := parts.get(f"{name}/{REACHED}"):
            with Files() as files:
                self._reached[site.node] = counts[0].value(files)


def _visits(
    groups: Sequence[Sequence[Sequence[Choice]]], segments: Sequence[Segment]
) -> Iterator[tuple[Segment, Choice, int]]:
    """The products with the first matrix of each group, by its number, with their segments, in the graph's order."""
    found: dict[ir.Node, list[tuple[Choice, int]]] = {}
    for number, matrices in enumerate(groups):
        for use in matrices[0]:
            found.setdefault(use.site.node, []).append((use, number))
    for segment in segments:
        yield from ((segment, *each) for node in segment.nodes for each in found.get(node, ()))


def _count_kept(finished: Finished, blocks: Sequence[Segment]) -> int:
    """How many blocks have been solved, now or in an earlier run."""
    return sum(finished.keeps(str(segment.index)) for segment in blocks)


@contextmanager
def _told_how_to_go_on(finished: Finished, blocks: Sequence[Segment]) -> Iterator[None]:
    """Say, where the user stops the block of code, that another run goes on after the blocks that are solved."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        if not (kept := _count_kept(finished, blocks)):
            raise
        cure = f"run it again: it goes on after the {kept} of {len(blocks)} blocks that are quantized already"
        raise Cancelled(cure=cure) from None


def _key_of(choice: Choice) -> str:
    """The name under which a site's parts are kept. It is the node's, because several sites may share a weight."""
    return choice.site.node.name or choice.site.name
