"""LayerByLayer: runs a decoder over sequences of tokens, with the weights of one segment at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, ModelError, Record, UsageError, counted
from drupe_files import disk_errors
from drupe_layerwise.activation_files import Values
from drupe_layerwise.batches import Batch, Feeds, batches_of
from drupe_layerwise.block_finding import mark_blocks
from drupe_layerwise.head import FLOAT, SlicedHead, hidden_rows, sliced_head
from drupe_layerwise.segments import (
    Segment,
    has_head,
    hidden_states,
    is_marked,
    node_reads,
    parts_of,
    result_of,
    segments_of,
    whole,
)
from drupe_layerwise.subgraph import Opened, cut_out, distinct, opened, opened_part
from drupe_onnx import DecoderDescription, decoder_of, ir

LOGIT = 2 * 4  # bytes: the runtime's logit and its float32 copy are held at the same time

Rows = NDArray[np.float32]


class Logits(Record):
    """Logits of one sequence. rows: float32 [positions, vocabulary], for the positions from `start` on."""

    sequence: int
    start: int
    rows: Rows


class _HiddenRows(Record):
    """The inputs of the head for some positions of one sequence: rows [positions, hidden]."""

    sequence: int
    start: int
    rows: NDArray[Any]


class LayerByLayer:
    """Runs a decoder's graph segment by segment. A context manager: leaving it removes its files.

    Segments are run in their order. Before `advance` leaves a segment, `collect` may run it any number of times, each
    time with the nodes and weights that it has at that moment. Between calls the graph may be changed in all segments
    that have not been left. Values that later segments read are kept in files in `context.scratch`.

    All tokens are computed up to the logits, also where the graph itself drops all but the last one before the head.
    Only weights of one segment are held at a time, and only those that the requested values need.
    """

    def __init__(self, model: ir.Model, sequences: Sequence[Sequence[int]], context: Context) -> None:
        """model: a decoder with or without key-value caches. Its blocks are marked here if the exporter did not do so.

        Raises ModelError where no block is found, UsageError where there are no tokens, or where a sequence is longer
        than the model's context.
        """
        description = decoder_of(model)
        _refuse_long(sequences, description)
        if not is_marked(model.graph):
            mark_blocks(model.graph)
        self.segments: Sequence[Segment] = segments_of(model.graph)
        self._model = model
        self._sequences = sequences
        self._batches = batches_of(sequences)
        self._context = context
        self._feeds = Feeds(description)
        self._next = 0
        self._settled: set[ir.Node] = set()
        self._known: list[ir.Value] = []
        """Names of the values, kept in files, that settled nodes of the next segment have made for other nodes."""
        with disk_errors(context.scratch):
            context.scratch.mkdir(parents=True, exist_ok=True)
            self._home = Path(tempfile.mkdtemp(prefix="layerwise-", dir=context.scratch))
        self._values = Values(self._home / "values")

    def collect(
        self, segment: Segment, names: Collection[str], sink: Callable[[str, Rows], None], *, settled: bool = False
    ) -> None:
        """Run a segment and pass values of it, by name, to `sink`: float32 [tokens, features], batch after batch.

        A value is one that a node of the segment reads or makes. Only the nodes that the values need are run, so values
        early in a block cost little. Earlier segments that have not been left are advanced through.
        settled: the nodes that make these values will not be changed any more. What they make for other nodes is kept
        in files, and they are not run again. Raises Cancelled between batches.
        """
        self._reach(segment)
        wanted = {name: whole(value) for name, value in _named(segment, names).items()}
        made = self._settle(segment, wanted.values()) if settled else []
        for _, batch, results in self._run(segment, distinct([*wanted.values(), *made])):
            for name, value in wanted.items():
                array = results[value.name or ""]
                sink(name, np.array(array.reshape(-1, array.shape[-1]), np.float32, order="C"))
            self._put(made, batch, results, segment)
        if settled:
            self._known = distinct(parts_of(self._model.graph).crossing(self._settled))
            before = parts_of(self._model.graph).kept(segment.index - 1)
            self._values.keep([value.name or "" for value in distinct([*before, *self._known])])

    def settle(self, segment: Segment, names: Collection[str]) -> None:
        """Run what makes these values of a segment, as `collect` does. These nodes will not be changed any more."""
        self.collect(segment, names, lambda name, rows: None, settled=True)

    def advance(self, segment: Segment, together: Sequence[LayerByLayer] = ()) -> None:
        """Run a segment as it is now, keep the values that later segments read, and leave the segment.

        together: branches of this run that stand at the segment as well. They are advanced with the same weights, which
        are read once.
        """
        self._reach(segment)
        parts = parts_of(self._model.graph)
        kept = parts.kept(segment.index)
        made = distinct([value for value in kept if parts.part(value) == segment.index])
        made = [value for value in made if value not in self._known]
        for run, batch, results in self._run(segment, made, together):
            run._put(made, batch, results, segment)
        for run in (self, *together):
            run._values.keep([whole(value).name or "" for value in kept])
            run._settled, run._known = set(), []
            run._next = segment.index + 1

    @property
    def batch_count(self) -> int:
        """How many batches the sequences make."""
        return len(self._batches)

    @property
    def batch_sizes(self) -> list[int]:
        """How many tokens each batch has."""
        return [batch.tokens.size for batch in self._batches]

    def given(self, segment: Segment) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What a segment reads, for each batch by name: inputs of the graph, and values made by earlier segments.

        What settled nodes of the segment make for its other nodes is there as well. Earlier segments that have not been
        left are advanced through.
        """
        self._reach(segment)
        values = distinct([*parts_of(self._model.graph).inputs(segment.index), *self._known])
        for batch in self._batches:
            yield {value.name or "": self._given(value, batch) for value in values}

    def branch(self) -> LayerByLayer:
        """Another run of this graph over the same sequences, which stands where this one does. It is closed alone."""
        other = LayerByLayer(self._model, self._sequences, self._context)
        self._values.copy_to(other._values)
        other._next = self._next
        return other

    def hidden_after(self, segment: Segment) -> list[dict[str, NDArray[Any]]]:
        """The hidden states that a segment has made, for each batch by name: a block reads the sum of them.

        The next segment is the one that this run stands at.
        """
        names = hidden_states(segment)
        return [{name: self._values.get(name, batch.index) for name in names} for batch in self._batches]

    def take_hidden(self, segment: Segment, states: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Replace the hidden states that a segment has made by `states`, which another graph has made of the sequences.

        Values of the same names are taken one by one. Where the names differ, the first one gets the sum of `states`.
        Raises ModelError where their shapes differ.
        """
        for batch, own, given in zip(self._batches, self.hidden_after(segment), states, strict=True):
            for name, array in _as_these(own, given, segment).items():
                self._values.put(name, batch.index, array.astype(own[name].dtype, copy=False))

    def logits(self, positions: int | None = None, together: Sequence[LayerByLayer] = ()) -> Iterator[Logits]:
        """The logits of every token of every sequence, `positions` of them at a time, sequence after sequence.

        A graph without a head gives its last hidden states in their place: rows [positions, hidden].
        Segments that have not been left yet are advanced through. Without `positions`, as many positions are computed
        at a time as fit into `context.memory_budget`. The iterator holds the head open until it is used up or closed.
        If the head's matrix does not fit into the budget, one range of the vocabulary is held at a time.
        together: branches of this run that stand at the head as well; their sequences follow, with numbers that go on.
        """
        last = self.segments[-1]
        self._reach(last)
        result = result_of(self._model.graph)
        hidden = hidden_rows(result) if has_head(self._model.graph) else whole(result)
        runs = (self, *together)
        if missing := [run for run in runs if (hidden.name or "") not in run._values]:
            for run, batch, results in missing[0]._run(last, [hidden], missing[1:]):
                run._values.put(hidden.name or "", batch.index, results[hidden.name or ""])
        positions = positions or max(1, self._context.memory_budget // (LOGIT * _vocabulary(self._model, result)))
        if hidden is whole(result):
            for each in _hidden_rows(runs, hidden, positions):
                yield Logits(each.sequence, each.start, each.rows.astype(np.float32, copy=False))
            return
        yield from self._head(runs, hidden, whole(result), positions)

    def values_at_head(self) -> dict[str, NDArray[Any]]:
        """What the last segment reads of earlier ones, which are advanced through: arrays by value and batch."""
        self._reach(self.segments[-1])
        names = [whole(value).name or "" for value in parts_of(self._model.graph).kept(self.segments[-1].index - 1)]
        return {_key(name, batch): self._values.get(name, batch.index) for name in names for batch in self._batches}

    def start_at_head(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Take what `values_at_head` gave for this graph and these sequences, in place of running all but the head.

        Raises KeyError where a value is missing.
        """
        last = self.segments[-1]
        for value in parts_of(self._model.graph).kept(last.index - 1):
            name = whole(value).name or ""
            for batch in self._batches:
                self._values.put(name, batch.index, values[_key(name, batch)])
        self._next = last.index

    def close(self) -> None:
        """Remove the files in the scratch folder."""
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> LayerByLayer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reach(self, segment: Segment) -> None:
        """Advance until this segment is the next one."""
        if segment.index < self._next:
            raise ValueError(f"segment {segment.index} was left by `advance`: its inputs are not kept any more")
        for each in self.segments[self._next : segment.index]:
            self.advance(each)

    def _settle(self, segment: Segment, values: Collection[ir.Value]) -> list[ir.Value]:
        """Count the nodes that make these values as settled. Returns what they make for others and is not in files."""
        parts = parts_of(self._model.graph)
        self._settled |= parts.behind(segment.index, values)
        return [value for value in distinct(parts.crossing(self._settled)) if value not in self._known]

    def _put(
        self, values: Sequence[ir.Value], batch: Batch, results: Mapping[str, NDArray[Any]], segment: Segment
    ) -> None:
        for value in values:
            _refuse_non_finite(results[value.name or ""], segment)
            self._values.put(value.name or "", batch.index, results[value.name or ""])

    def _run(
        self, segment: Segment, values: Sequence[ir.Value], together: Sequence[LayerByLayer] = ()
    ) -> Iterator[tuple[LayerByLayer, Batch, Mapping[str, NDArray[Any]]]]:
        """The values, by name, for each batch of each run. Values in files and inputs of the graph are not computed."""
        known = [*(whole(value) for value in parts_of(self._model.graph).inputs(segment.index)), *self._known]
        made = [value for value in values if value not in known]
        given = [value for value in values if value in known]
        if not values:
            return
        with self._opened(known, made) if made else nullcontext() as part:
            for run in (self, *together):
                for batch in run._batches:
                    self._context.stop_if_cancelled()
                    results = {value.name or "": run._given(value, batch) for value in given}
                    if part is not None:
                        results |= part.run({value.name or "": run._given(value, batch) for value in part.inputs})
                    yield run, batch, results

    def _opened(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> AbstractContextManager[Opened]:
        return opened(self._model, inputs, outputs, self._home, self._context)

    def _given(self, value: ir.Value, batch: Batch) -> NDArray[Any]:
        """An input of the graph, or a value that an earlier segment has made."""
        if value.producer() is None:
            return self._feeds.feed(value, batch)
        return self._values.get(value.name or "", batch.index)

    def _head(
        self, runs: Sequence[LayerByLayer], hidden: ir.Value, result: ir.Value, positions: int
    ) -> Iterator[Logits]:
        cut = cut_out(self._model, [hidden], [result])
        if (sliced := sliced_head(cut, hidden, result, self._context.memory_budget)) is not None:
            yield from self._sliced(runs, sliced, positions)
            return
        with opened_part(cut, [hidden], [result], self._home, self._context) as part:
            for each in _hidden_rows(runs, hidden, positions):
                logits = part.run({hidden.name or "": each.rows[None]})[result.name or ""]
                yield Logits(each.sequence, each.start, logits[0].astype(np.float32, copy=False))

    def _sliced(self, runs: Sequence[LayerByLayer], head: SlicedHead, positions: int) -> Iterator[Logits]:
        """The logits of as many tokens at a time as fit into the budget; all ranges are made again each time."""
        most = max(1, self._context.memory_budget // (FLOAT * head.vocabulary))
        with opened_part(head.part, [head.hidden], [head.result], self._home, self._context) as part:
            for group in _grouped(_hidden_rows(runs, head.hidden, positions), most):
                rows = np.concatenate([each.rows for each in group])
                logits = np.empty((len(rows), head.vocabulary), np.float32)
                for first, last in head.ranges:
                    self._context.stop_if_cancelled()
                    given = {head.hidden.name or "": rows[None]}
                    given[head.name] = head.range(first, last, self._context.threads)
                    logits[:, first:last] = part.run(given)[head.result.name or ""][0]
                    del given  # frees the range before the next one is made
                bounds = np.cumsum([len(each.rows) for each in group])[:-1]
                for each, own in zip(group, np.split(logits, bounds), strict=True):
                    yield Logits(each.sequence, each.start, own)


def _hidden_rows(runs: Sequence[LayerByLayer], hidden: ir.Value, positions: int) -> Iterator[_HiddenRows]:
    """The inputs of the head, `positions` rows at a time, run after run."""
    sequences = 0
    for run in runs:
        for batch in run._batches:
            rows = run._values.get(hidden.name or "", batch.index)
            if rows.shape[:2] != batch.tokens.shape:
                raise ModelError(
                    "the graph gives only the last token's logits, and does not mark the nodes that drop the others",
                    cure="make the package again with --all-logits",
                )
            for place, sequence in enumerate(rows):
                for start in range(0, len(sequence), positions):
                    run._context.stop_if_cancelled()
                    number = sequences + batch.first + place
                    yield _HiddenRows(number, start, np.array(sequence[start : start + positions]))
        sequences += len(run._sequences)


def _as_these(
    own: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]], segment: Segment
) -> Mapping[str, NDArray[Any]]:
    """The hidden states `given` under the names of `own`: one by one, or their sum and zeros."""
    if own.keys() == given.keys():
        taken = dict(given)
    else:
        first, *others = own
        whole_state = np.sum([array.astype(np.float32) for array in given.values()], axis=0)
        taken = {first: whole_state, **{name: np.zeros_like(own[name]) for name in others}}
    if any(array.shape != own[name].shape for name, array in taken.items()):
        where = "before the blocks" if segment.block is None else f"after decoder block {segment.block}"
        raise ModelError(
            f"the two graphs pass other values {where}",
            cure="compare the package with the model that it was made from",
        )
    return taken


def _key(name: str, batch: Batch) -> str:
    return f"{batch.index}:{name}"


def _grouped(chunks: Iterator[_HiddenRows], most: int) -> Iterator[list[_HiddenRows]]:
    """Groups of chunks with at most so many rows together; a larger chunk is a group of its own."""
    group: list[_HiddenRows] = []
    for each in chunks:
        if group and sum(len(one.rows) for one in group) + len(each.rows) > most:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _refuse_non_finite(values: NDArray[Any], segment: Segment) -> None:
    """Raise an error for NaN or Inf here: later values would not show where it began. -Inf in masks is allowed."""
    if values.dtype.kind == "f" and (np.isnan(values) | np.isposinf(values)).any():
        where = "the nodes before the blocks" if segment.block is None else f"decoder block {segment.block}"
        raise ModelError(
            f"the model computes NaN or Inf for the text, in {where}",
            cure="check its weights for very large values: drupe needs a model that computes finite numbers",
        )


def _refuse_long(sequences: Sequence[Sequence[int]], description: DecoderDescription | None) -> None:
    longest, context = max(map(len, sequences), default=0), description.context_length if description else None
    if context and longest > context:
        raise UsageError(
            f"sequences of {counted(longest, 'token')} do not fit into the model's context of {context}",
            cure=f"--calibration-length {context}, or --length {context} to evaluate",
        )


def _named(segment: Segment, names: Collection[str]) -> dict[str, ir.Value]:
    """The segment's values of these names."""
    found: dict[str, ir.Value] = {}
    for node in segment.nodes:
        found.update((value.name or "", value) for value in (*node_reads(node), *node.outputs))
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"segment {segment.index} has no value '{missing[0]}'")
    return {name: found[name] for name in names}


def _vocabulary(model: ir.Model, logits: ir.Value) -> int:
    """How many logits a token has; a large number where the graph does not give it."""
    size = logits.shape[-1] if logits.shape is not None else None
    if isinstance(size, int):
        return size
    description = decoder_of(model)
    return description.vocab_size if description else 1 << 18
