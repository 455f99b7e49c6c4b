"""The head in torch: the norm and the matrix that make logits, trained towards the logits of the source.

A large vocabulary is sampled: training sees the logits of the tokens that the source finds likeliest in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from drupe.api import Record
from drupe_files import disk_errors
from drupe_layerwise import LayerByLayer
from drupe_onnx import Files, constant_of, ir
from drupe_recover.attention import Unknown
from drupe_recover.block import Block, Training
from drupe_recover.stages import Stage, is_product
from drupe_recover.trained import Rows, read_once, scales_behind
from drupe_recover.training import Lesson, divergence

Tensor: TypeAlias = Any  # of torch, which linters do not see
TOKENS = 8192
"""How many tokens of a vocabulary are trained at most."""
POSITIONS = 64
"""How many rows of logits are made at a time."""
OF_LOOK_UP = 0.5
"""The divergence that the look-up causes, relative to that of the head, where both read one matrix. It is 0.4 to 1 in
small trained models."""


def is_shared(stage: Stage) -> bool:
    """Whether other nodes read the scales of the head's matrix as well. Raises Unknown as Head does."""
    stored = [scales_behind(node.inputs[2]) for node in products_of(stage)]
    return all(each is not None and not any(map(read_once, each)) for each in stored)


class Targets(Record):
    """The source's logits of some tokens, for every position of the text: float32 [positions, tokens], in a file."""

    logits: NDArray[np.float32]
    tokens: Rows

    def lessons(self, layers: LayerByLayer) -> list[Lesson]:
        """The lessons of the head: what it reads in a run over the same text, and these logits."""
        lessons, start = [], 0
        for given, count in zip(layers.given(layers.segments[-1]), layers.batch_sizes, strict=True):
            lessons.append(Lesson(given, partial(self._rows, slice(start, start + count))))
            start += count
        return lessons

    def _rows(self, positions: slice) -> NDArray[np.float32]:
        return self.logits[positions]


def likeliest(source: LayerByLayer) -> Rows:
    """The numbers of the tokens that a model finds likeliest over all positions of its text: at most TOKENS."""
    total: NDArray[np.float64] | None = None
    for chunk in source.logits(POSITIONS):
        if chunk.rows.shape[-1] <= TOKENS:
            return np.arange(chunk.rows.shape[-1])
        odds = np.exp(chunk.rows - chunk.rows.max(-1, keepdims=True))
        shares = (odds / odds.sum(-1, keepdims=True)).sum(0, dtype=np.float64)
        total = shares if total is None else total + shares
    assert total is not None
    return np.sort(np.argsort(-total, kind="stable")[:TOKENS])


def targets_of(source: LayerByLayer, tokens: Rows, path: Path) -> Targets:
    """The logits of these tokens, written to a file."""
    positions = sum(source.batch_sizes)
    with disk_errors(path):
        with path.open("wb") as file:  # through a memory map, a full disk would end the process
            for chunk in source.logits(POSITIONS):
                file.write(chunk.rows[:, tokens].astype(np.float32).tobytes())
        logits = np.memmap(path, np.float32, "c", shape=(positions, len(tokens)))
    return Targets(logits, tokens)


class Head(Block):
    """The last stage, with the logits of some tokens."""

    def __init__(self, stage: Stage, device: torch.device, tokens: Rows, training: Training = Training.ALL) -> None:
        self._parts = parts_of(stage, tokens)
        super().__init__(stage, device, self._parts, training)

    def loss(self, lesson: Lesson) -> Tensor:
        return divergence(self(lesson.given).flatten(0, -2), self.target(lesson))

    def embeddings(self) -> Tensor:
        """The rows of the matrix for the chosen tokens."""
        return torch.cat([self.matrix(node) for node in self._parts])


def products_of(stage: Stage) -> list[ir.Node]:
    """The products that make the logits: several make parts of the vocabulary. Raises Unknown where there are none."""
    products = [node for node in stage.nodes if is_product(node)]
    if not products:
        raise Unknown("a head in floating point")
    return products


def parts_of(stage: Stage, tokens: Rows) -> dict[ir.Node, Rows]:
    """The rows of each product's matrix for these tokens. Raises Unknown for a product that makes none of them."""
    parts: dict[ir.Node, Rows] = {}
    start = 0
    for node in products_of(stage):
        stop = start + node.attributes["N"].as_int()
        parts[node] = tokens[(tokens >= start) & (tokens < stop)] - start
        start = stop
    if not all(map(len, parts.values())) or start <= tokens[-1]:
        raise Unknown("a head in other parts")
    return parts


class SharedHead:
    """A head whose matrix is read by the look-up of tokens as well: the loss counts the errors of both.

    Each error counts relative to what it was. embeddings: the source's rows of the tokens. shares: how often each of
    them occurs in the text.
    """

    def __init__(self, head: Head, embeddings: NDArray[np.float32], shares: NDArray[np.float32]) -> None:
        self.trained = head.trained
        self._head = head
        self._rows, self._shares = (torch.from_numpy(each).to(head.device) for each in (embeddings, shares))
        self._size = self._rows.square().sum(-1).clamp(min=1e-12)
        self._first: tuple[Tensor, Tensor] | None = None

    def settle(self, settled: bool) -> None:
        self._head.settle(settled)

    def loss(self, lesson: Lesson) -> Tensor:
        of_head, of_look_up = self._head.loss(lesson), self._of_look_up()
        if self._first is None:
            self._first = of_head.detach(), of_look_up.detach().clamp(min=1e-12)
        return of_head / self._first[0] + OF_LOOK_UP * of_look_up / self._first[1]

    def _of_look_up(self) -> Tensor:
        """The mean squared error of the rows that the text looks up, relative to their size."""
        error = (self._head.embeddings() - self._rows).square().sum(-1)
        return (error / self._size * self._shares).sum()


def embeddings_of(source: ir.Model, tokens: Rows) -> NDArray[np.float32] | None:
    """The rows of the table that a model looks its tokens up in, or of its parts; None where it is made otherwise."""
    tables = [
        table
        for node in source.graph
        if node.op_type == "Gather" and _is_of_tokens(node.inputs[1])
        if (table := constant_of(node.inputs[0])) is not None and len(table.shape) == 2
    ]
    found, start = [], 0
    with Files() as files:
        for table in tables:
            own = tokens[(tokens >= start) & (tokens < start + table.shape[0])] - start
            found += [table.rows(each, each + 1, files) for each in own.tolist()]
            start += table.shape[0]
    return np.concatenate(found).astype(np.float32) if len(found) == len(tokens) else None


def _is_of_tokens(value: ir.Value | None) -> bool:
    """Whether indices are the model's input, maybe moved to the part of a table."""
    while value is not None and not value.is_graph_input():
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in ("Clip", "Sub", "Cast") else None
    return value is not None


def shares_of(sequences: Sequence[Sequence[int]], tokens: Rows) -> NDArray[np.float32]:
    """How often each of some tokens occurs in a text, as a share of all that are among them."""
    counts = np.bincount(np.concatenate([np.asarray(each) for each in sequences]), minlength=int(tokens[-1]) + 1)
    own = counts[tokens].astype(np.float32)
    return own / max(float(own.sum()), 1.0)
