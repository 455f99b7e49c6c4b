"""The pass `recover-scales`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Context, Form, Model, ModelError, Notice, counted
from drupe_layerwise import Distribution, LayerByLayer, Segment
from drupe_onnx import OnnxPackage, ir
from drupe_recover.configuration import RecoverConfig, refuse_missing
from drupe_text import CalibratingPass

if TYPE_CHECKING:
    from drupe_recover.training import Lesson

POSITIONS = 64
"""How many rows of logits are compared at a time."""
FARTHEST = 0.05
"""How far torch's outputs of a block may be from the runtime's, relative to them. Activations may have 8 bits there."""


class RecoverScales(CalibratingPass):
    """Trains the scales of quantized matrices and the weights of norms, block by block; levels and zero points stay.

    Each block gets what the quantized blocks before it make of a text, and its targets are the outputs of the source's
    block. A block whose loss does not fall on a part of the text that is held out stays as it was, and all of them do
    where the divergence of the whole model does not fall there. Experts, and what else torch does not run here, stay
    as well; in a block with experts, only what comes before them is trained.
    """

    name = "recover-scales"
    summary = "trains scales and norms of a quantized model, block by block, towards its source"
    revision = 1
    Config = RecoverConfig
    requires = Form("onnx", {"weights": "quantized"})
    ensures = Form("onnx")
    libraries = ("drupe-layerwise", "numpy")

    def preview(self, model: Model, config: RecoverConfig, context: Context) -> Model:
        """The model with the same schemes and bytes."""
        refuse_missing()
        return super().preview(model, config, context)

    def run(self, model: Model, config: RecoverConfig, context: Context) -> Model:
        refuse_missing()
        # torch's threads wait asleep: where others use the processor too, those that spin take ten times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        package: OnnxPackage = model.payload
        if not package.sources:
            raise ModelError(
                "the weights were quantized before, so there is nothing to recover them from",
                where=model.location,
                cure="start from the checkpoint in floating point, or leave --recover out",
            )
        sequences = self.sequences(model, config, context)
        context.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="recover-", dir=context.scratch))
        source = next(iter(package.sources.values()))
        recovering = Recovering(package.component, source, config, context)
        notice = recovering.run(sequences, folder)
        package.sources = {}
        return model.noticed(notice)


@dataclass
class Recovering:
    """Trains one graph, in place. left: how many blocks torch does not run here as a whole, by the operator."""

    model: ir.Model
    source: ir.Model
    config: RecoverConfig
    context: Context
    better: int = 0
    blocks: int = 0
    left: dict[str, int] = field(default_factory=dict)

    def run(self, sequences: Sequence[Sequence[int]], folder: Path) -> Notice:
        """Train block after block. Raises DrupeError and Cancelled."""
        learned = sequences[: len(sequences) - self._held_out(sequences)]
        apart = sequences[len(learned) :]
        untouched = self.model.clone()
        with (
            _threads(self.context.threads),
            LayerByLayer(self.model, learned, self.context) as own,
            LayerByLayer(self.model, apart, self.context) as own_apart,
            LayerByLayer(self.source, learned, self.context) as wanted,
            LayerByLayer(self.source, apart, self.context) as wanted_apart,
        ):
            self._train_blocks(own, own_apart, wanted, wanted_apart, folder)
            if not self.better:
                return self._told(0.0, 0.0)
            after = self._divergence(wanted_apart, own_apart)
            with LayerByLayer(untouched, apart, self.context) as plain:
                before = self._divergence(wanted_apart, plain)
        if after >= before:
            _take_back(self.model, untouched)
        return self._told(before, after)

    def _train_blocks(
        self,
        own: LayerByLayer,
        own_apart: LayerByLayer,
        wanted: LayerByLayer,
        wanted_apart: LayerByLayer,
        folder: Path,
    ) -> None:
        blocks = [segment for segment in own.segments if segment.block is not None]
        each = own.batch_count * self.config.epochs
        with self.context.progress.task("recovering scales and norms", len(blocks) * each, "step"):
            for segment, its_source in zip(own.segments[:-1], wanted.segments[:-1], strict=True):
                for runner in (wanted, wanted_apart):
                    runner.advance(runner.segments[its_source.index])
                if segment.block is not None:
                    self.blocks += 1
                    self._train(
                        segment,
                        _lessons(own, segment, wanted, its_source),
                        _lessons(own_apart, own_apart.segments[segment.index], wanted_apart, its_source),
                        own_apart,
                        folder,
                    )
                for runner in (own, own_apart):
                    runner.advance(runner.segments[segment.index])

    def _train(
        self, segment: Segment, learned: Sequence[Lesson], apart: Sequence[Lesson], runner: LayerByLayer, folder: Path
    ) -> None:
        """Train a block, and store what has become better."""
        import torch

        from drupe_recover.attention import Unknown
        from drupe_recover.block import Block
        from drupe_recover.trained import Written
        from drupe_recover.training import train

        device = torch.device(self.config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            block = Block(segment, device)
            if block.without and not set(block.names) <= set(learned[0].wanted):
                raise Unknown(block.without)
            if self._distance(block, apart[0], runner, segment) > FARTHEST:
                raise Unknown("a computation of another kind")
        except Unknown as unknown:
            self._leave(str(unknown))
            self.context.progress.advance(self.config.epochs * len(learned))
            return
        if block.without:
            self._leave(block.without)
        before, after = train(block, learned, apart, self.config, self.context.seed, device, self._step_done)
        if not after < before:
            return
        self.better += 1
        written = Written(folder / f"{segment.index}.data")
        for values in block.trained:
            for stored, array in zip(values.stored, values.settled()[1], strict=True):
                written.write(stored, array)

    def _step_done(self) -> None:
        self.context.progress.advance(1)
        self.context.stop_if_cancelled()

    def _leave(self, why: str) -> None:
        self.left[why] = self.left.get(why, 0) + 1

    def _distance(self, block: Any, lesson: Lesson, runner: LayerByLayer, segment: Segment) -> float:
        """How far torch's hidden states of one batch are from the runtime's, relative to them."""
        import numpy as np

        made: dict[str, Any] = {}
        runner.collect(runner.segments[segment.index], block.names, lambda name, rows: made.setdefault(name, rows))
        expected = np.sum(list(made.values()), axis=0)
        found = block(lesson.given).detach().cpu().numpy().reshape(expected.shape)
        return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)

    def _divergence(self, source: LayerByLayer, changed: LayerByLayer) -> float:
        """KL(source || changed), the mean over all tokens, in nats."""
        total, tokens = 0.0, 0
        for expected, found in zip(source.logits(POSITIONS), changed.logits(POSITIONS), strict=True):
            for one, other in zip(expected.rows, found.rows, strict=True):
                total += Distribution.of(one, "the source").divergence(Distribution.of(other, "the package"))
            tokens += len(expected.rows)
        return total / max(1, tokens)

    def _held_out(self, sequences: Sequence[Sequence[int]]) -> int:
        return min(len(sequences) - 1, max(1, round(self.config.held_out * len(sequences))))

    def _told(self, before: float, after: float) -> Notice:
        """What came of it, in one sentence."""
        left = "".join(
            f"; {why}, and what comes after it, stayed as before in {counted(count, 'block')}"
            for why, count in self.left.items()
        )
        if not self.better:
            return Notice("weights", "not recovered", f"no block became better by training{left}")
        if after >= before:
            what = f"training did not lower the divergence on the part held out ({before:.4g} nats a token){left}"
            return Notice("weights", "not recovered", what, "other --calibration-data, or more of it")
        what = (
            f"scales and norms of {self.better} of {counted(self.blocks, 'block')} were trained: the divergence on "
            f"the part of the text held out fell from {before:.4g} to {after:.4g} nats a token{left}"
        )
        return Notice("weights", "recovered", what)


def _lessons(own: LayerByLayer, segment: Segment, wanted: LayerByLayer, its_source: Segment) -> list[Lesson]:
    from drupe_recover.training import Lesson

    targets = wanted.hidden_after(wanted.segments[its_source.index])
    return [Lesson(given, target) for given, target in zip(own.given(segment), targets, strict=True)]


def _take_back(model: ir.Model, before: ir.Model) -> None:
    """Give the initializers of a graph the values that they had before."""
    for name, value in before.graph.initializers.items():
        model.graph.initializers[name].const_value = value.const_value


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the `with` block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
