"""Recovering: trains one graph towards its source, segment after segment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from drupe.api import Context, Notice, Record, counted
from drupe_files import disk_errors
from drupe_layerwise import Distribution, LayerByLayer, Segment, has_head, hidden_states, result_of, whole
from drupe_onnx import ir
from drupe_recover.attention import Unknown
from drupe_recover.block import Block, Training, others_of
from drupe_recover.configuration import RecoverConfig
from drupe_recover.experts import expert_count, held_bytes
from drupe_recover.head import (
    POSITIONS,
    Head,
    SharedHead,
    Targets,
    embeddings_of,
    is_shared,
    likeliest,
    shares_of,
    targets_of,
)
from drupe_recover.stages import Stage, left_by, stages_of
from drupe_recover.trained import Rows, Written
from drupe_recover.training import Lesson, Trainee, train

FARTHEST = 0.05
"""How far torch's outputs of a block may be from the runtime's, relative to them. Activations may have 8 bits there."""
CHANCE = 1.64
"""How many standard errors the divergence has to fall by: by chance, it does so in one of twenty runs."""
Sequences: TypeAlias = Sequence[Sequence[int]]
States: TypeAlias = Mapping[str, NDArray[Any]]
Target: TypeAlias = Callable[[], NDArray[Any]]


class Pair(NamedTuple):
    """A run of a graph over the text that is learned, and one over the part that is held out."""

    learned: LayerByLayer
    apart: LayerByLayer

    def advance(self, segment: Segment) -> None:
        for runner in self:
            runner.advance(runner.segments[segment.index])


class Lessons(NamedTuple):
    """The lessons that a stage learns, and those that judge it."""

    learned: Sequence[Lesson]
    apart: Sequence[Lesson]


@dataclass
class Recovering:
    """Trains one graph, in place. folder: for what it stores.

    better: what became better, blocks by number. left: in how many blocks something stays as it was, by the reason.
    """

    model: ir.Model
    source: ir.Model
    config: RecoverConfig
    context: Context
    folder: Path
    better: set[int | str] = field(default_factory=set)
    blocks: int = 0
    left: dict[str, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count, init=False)

    def __post_init__(self) -> None:
        self._device = torch.device(self.config.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def run(self, sequences: Sequences) -> Notice:
        """Train block after block, and the head. Raises DrupeError and Cancelled."""
        learned = sequences[: len(sequences) - self._held_out(sequences)]
        apart = sequences[len(learned) :]
        untouched = self.model.clone()
        targets = self._train_shared_head(learned, apart)
        with self._pair(self.model, learned, apart) as own, self._pair(self.source, learned, apart) as wanted:
            self._train_segments(own, wanted, targets)
            if not self.better:
                return self._told(Judgement())
            after = divergences_of(wanted.apart, own.apart)
            with LayerByLayer(untouched, apart, self.context) as plain:
                judgement = Judgement.of(divergences_of(wanted.apart, plain), after)
        if not judgement.fell:
            _take_back(self.model, untouched)
        return self._told(judgement)

    @contextmanager
    def _pair(self, model: ir.Model, *texts: Sequences) -> Iterator[Pair]:
        with ExitStack() as stack:
            yield Pair(*(stack.enter_context(LayerByLayer(model, text, self.context)) for text in texts))

    def _held_out(self, sequences: Sequences) -> int:
        return min(len(sequences) - 1, max(1, round(self.config.held_out * len(sequences))))

    def _train_segments(self, own: Pair, wanted: Pair, targets: Sequence[Targets]) -> None:
        self.blocks = sum(segment.block is not None for segment in own.learned.segments)
        with self.context.progress.task("recovering scales and norms", self.blocks, "block") as progress:
            for segment, its_source in zip(own.learned.segments[:-1], wanted.learned.segments[:-1], strict=True):
                wanted.advance(its_source)
                if segment.block is not None:
                    self._train_block(segment, own, [_hidden(each, its_source) for each in wanted])
                own.advance(segment)
                progress.advance(segment.block is not None)
        if has_head(self.model.graph):
            self._train_head(own, targets or self._targets(wanted))

    def _train_block(self, segment: Segment, own: Pair, targets: Sequence[Sequence[States]]) -> None:
        """Train the stages of a block one after another."""
        stages = stages_of(segment, hidden_states(segment))
        unknown = left_by(segment, stages)
        for stage in stages:
            names = None if stage is stages[-1] else stage.names
            if names is not None and not set(names) <= targets[0][0].keys():
                continue
            try:
                summed = [[partial(_summed, each, names) for each in part] for part in targets]
                self._train_stage(stage, segment, own, summed)
            except Unknown as error:
                unknown = str(error)
        if unknown:
            self.left[unknown] = self.left.get(unknown, 0) + 1

    def _train_stage(self, stage: Stage, segment: Segment, own: Pair, targets: Sequence[Sequence[Target]]) -> None:
        """Train a stage: its experts group after group, and all the rest with the first group."""
        if stage.given:
            for runner in own:
                runner.settle(runner.segments[segment.index], stage.gets)
        written = self._written()
        for number, chosen in enumerate(self._groups(stage)):
            block = Block(stage, self._device, chosen, Training.EXPERTS if number else Training.ALL)
            lessons = Lessons(
                *(
                    [Lesson(*each) for each in zip(self._given(block, stage, segment, runner), wanted, strict=True)]
                    for runner, wanted in zip(own, targets, strict=True)
                )
            )
            if _distance(block, lessons.apart[0], _made(own.apart, segment, stage.names)) > FARTHEST:
                raise Unknown("a computation of another kind")
            if self._train(block, lessons, written):
                assert segment.block is not None
                self.better.add(segment.block)

    def _groups(self, stage: Stage) -> list[dict[ir.Node, Rows]]:
        """The experts of a stage, in groups that fit into the memory budget; {} stands for all of them."""
        counts = {node: expert_count(node) for node in stage.experts}
        sizes = (max(1, self.context.memory_budget // held_bytes(node)) for node in counts)
        wanted = max((-(-count // size) for count, size in zip(counts.values(), sizes, strict=True)), default=1)
        groups = min(wanted, *counts.values()) if counts else 1
        if groups == 1:
            return [{}]
        parts = {node: np.array_split(np.arange(count), groups) for node, count in counts.items()}
        return [{node: part[each] for node, part in parts.items()} for each in range(groups)]

    def _given(self, block: Block, stage: Stage, segment: Segment, runner: LayerByLayer) -> list[States]:
        """What a block is given, for each batch: with the results of experts that it does not run."""
        segment = runner.segments[segment.index]
        found = [dict(each) for each in runner.given(segment)]
        for node in block.in_part:
            path = self.folder / f"others-{stage.experts.index(node)}-{runner.batch_count}-{id(runner)}.data"
            rows = _collected(runner, segment, node.outputs[0].name or "", path)
            for given, others in zip(found, np.split(rows, np.cumsum(runner.batch_sizes)[:-1]), strict=True):
                with torch.no_grad():
                    others -= block.of_experts(node, given).cpu().numpy().reshape(others.shape)
                given[others_of(node)] = others
        return list(found)

    def _written(self) -> Written:
        return Written(self.folder / f"{next(self._numbers)}.data")

    def _train(self, trainee: Trainee[Lesson], lessons: Lessons, written: Written) -> bool:
        """Train, and store what has become better. Returns whether it has."""
        before, after = train(trainee, *lessons, self.config, self.context.seed, self.context.stop_if_cancelled)
        if after < before:
            for values in trainee.trained:
                written.keep(values)
        return after < before

    def _train_shared_head(self, learned: Sequences, apart: Sequences) -> Sequence[Targets]:
        """Train a head's matrix that the look-up of tokens reads as well, on what the source's head reads.

        This comes before the blocks, so that they are trained with the rows that are looked up then. Returns the head's
        targets; none where the head has its own matrix.
        """
        if not has_head(self.model.graph):
            return ()
        with LayerByLayer(self.model, apart, self.context) as own:
            stage, states = _head_stage(own), hidden_states(own.segments[-2])
        with self._pair(self.source, learned, apart) as wanted:
            try:
                its_stage, its_states = _head_stage(wanted.apart), hidden_states(wanted.apart.segments[-2])
                if not is_shared(stage) or (states, stage.gets) != (its_states, its_stage.gets):
                    return ()
            except Unknown:
                return ()
            with self.context.progress.task("recovering the embedding", 1, "matrix") as progress:
                targets = self._targets(wanted)
                tokens = targets[0].tokens
                embeddings = embeddings_of(self.source, tokens)
                if embeddings is not None:
                    head = Head(stage, self._device, tokens, Training.SHARED)
                    lessons = _lessons_of_head(stage, targets, wanted)
                    if self._train(SharedHead(head, embeddings, shares_of(learned, tokens)), lessons, self._written()):
                        self.better.add("embedding")
                progress.advance(1)
        return targets

    def _targets(self, wanted: Pair) -> Sequence[Targets]:
        tokens = likeliest(wanted.learned)
        return [targets_of(each, tokens, self.folder / f"{next(self._numbers)}.logits") for each in wanted]

    def _train_head(self, own: Pair, targets: Sequence[Targets]) -> None:
        """Train the final norm, and the head's matrix where no other node reads it."""
        tokens = targets[0].tokens
        try:
            head_stage = _head_stage(own.apart)
            head = Head(head_stage, self._device, tokens)
            lessons = _lessons_of_head(head_stage, targets, own)
            with own.apart.branch() as branch:
                chunk = next(iter(branch.logits(POSITIONS)))
            if _distance(head, lessons.apart[0], chunk.rows[:, tokens]) > FARTHEST:
                raise Unknown("a head of another kind")
        except Unknown:
            return
        if self._train(head, lessons, self._written()):
            self.better.add("head")

    def _told(self, judgement: Judgement) -> Notice:
        """What came of it, in one sentence."""
        before, after = judgement.before, judgement.after
        left = "".join(
            f"; because of {why}, weights stayed as before in {counted(count, 'block')}"
            for why, count in self.left.items()
        )
        if not self.better:
            return Notice("weights", "not recovered", f"nothing became better by training{left}")
        if not judgement.fell:
            tokens = counted(judgement.tokens, "token")
            what = f"training did not lower the divergence on the part held out ({before:.4g} nats a token)"
            if after < before:
                what = (
                    f"on the {tokens} of the part held out, training lowered the divergence only from {before:.4g} to "
                    f"{after:.4g} nats a token, which may be chance"
                )
            return Notice("weights", "not recovered", what + left, "other --calibration-data, or more of it")
        blocks = len(self.better - {"head", "embedding"})
        others = "".join(f", and of the {each}" for each in ("head", "embedding") if each in self.better)
        what = (
            f"scales and norms of {blocks} of {counted(self.blocks, 'block')}{others} were trained: the divergence on "
            f"the part of the text held out fell from {before:.4g} to {after:.4g} nats a token{left}"
        )
        return Notice("weights", "recovered", what)


class Judgement(Record):
    """The divergence on the part held out, before and after training; and whether it fell by more than chance."""

    before: float = 0.0
    after: float = 0.0
    tokens: int = 0
    fell: bool = False

    @classmethod
    def of(cls, before: NDArray[np.float64], after: NDArray[np.float64]) -> Judgement:
        """From the divergences at each token: some became larger, and others smaller."""
        change = after - before
        error = float(change.std()) / math.sqrt(len(change))
        fell = float(change.mean()) + CHANCE * error < 0
        return cls(float(before.mean()), float(after.mean()), len(change), fell)


def divergences_of(source: LayerByLayer, changed: LayerByLayer) -> NDArray[np.float64]:
    """KL(source || changed) at each token, in nats."""
    return np.array([
        Distribution.of(one, "the source").divergence(Distribution.of(other, "the package"))
        for expected, found in zip(source.logits(POSITIONS), changed.logits(POSITIONS), strict=True)
        for one, other in zip(expected.rows, found.rows, strict=True)
    ])  # fmt: skip


def _head_stage(layers: LayerByLayer) -> Stage:
    last = layers.segments[-1]
    (stage,) = stages_of(last, [whole(result_of(last.graph)).name or ""])
    return stage


def _lessons_of_head(stage: Stage, targets: Sequence[Targets], runs: Pair) -> Lessons:
    if stage.given:
        for runner in runs:
            runner.settle(runner.segments[-1], stage.gets)
    return Lessons(*(each.lessons(runner) for each, runner in zip(targets, runs, strict=True)))


def _hidden(wanted: LayerByLayer, its_source: Segment) -> Sequence[States]:
    return wanted.hidden_after(wanted.segments[its_source.index])


def _summed(states: States, names: Sequence[str] | None) -> NDArray[np.float32]:
    """The sum of hidden states: float32 [batch, tokens, features]. names: of those that count; None for all."""
    chosen = [states[name].astype(np.float32) for name in (states if names is None else names)]
    summed: NDArray[np.float32] = np.sum(chosen, axis=0)
    return summed


def _made(runner: LayerByLayer, segment: Segment, names: Sequence[str]) -> NDArray[np.float32]:
    """The sum of values of a segment, as the runtime makes them: [tokens of the first batch, features]."""
    found: dict[str, NDArray[np.float32]] = {}

    def keep_first(name: str, rows: NDArray[np.float32]) -> None:
        found.setdefault(name, rows)

    runner.collect(runner.segments[segment.index], names, keep_first)
    summed: NDArray[np.float32] = np.sum(list(found.values()), axis=0)
    return summed


def _collected(runner: LayerByLayer, segment: Segment, name: str, path: Path) -> NDArray[np.float32]:
    """A value of a segment for all tokens, [tokens, features], in a file that may be changed."""
    features: list[int] = []
    with disk_errors(path):
        with path.open("wb") as file:

            def put(_: str, rows: NDArray[np.float32]) -> None:
                features.append(rows.shape[-1])
                rows.tofile(file)

            runner.collect(segment, [name], put)
        return np.memmap(path, np.float32, "r+").reshape(-1, features[0])


def _distance(block: Block, lesson: Lesson, expected: NDArray[np.float32]) -> float:
    """How far torch's results are from the runtime's, relative to them: of the first tokens of a batch."""
    with torch.no_grad():
        made = block(lesson.given)
    found = made.cpu().numpy().reshape(-1, expected.shape[-1])[: len(expected)]
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)


def _take_back(model: ir.Model, before: ir.Model) -> None:
    """Give the initializers of a graph the values that they had before."""
    for name, value in before.graph.initializers.items():
        model.graph.initializers[name].const_value = value.const_value
