"""What quantizing each layer costs: the source is run with one layer of the package at a time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, ModelError, counted
from drupe_layerwise import Distribution, LayerByLayer, Logits, RecordedLogits, Segment
from drupe_onnx import ir

POSITIONS = 64
"""How many rows of logits are compared at a time."""
HEAD = "head"
UNRELATED = 0.7
"""The relative error behind the embedding above which hidden states are in another basis, as a rotation makes them. It
is 1.4 for a rotation, and some 0.1 for an embedding of 4 bits."""
Tokens = Sequence[Sequence[int]]
Hidden = Sequence[Mapping[str, NDArray[Any]]]


@dataclass
class LayerCosts:
    """By the layer's name, in the model's order: "embedding", "layer=0", ..., "head".

    divergence: KL of the source with this one layer of the package from the source, the mean over all tokens, in nats.
    error: how far the package's own hidden states behind the layer are from the source's, relative to their size.
    whole: the divergence of the whole package.
    """

    divergence: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    whole: float = 0.0


def layer_costs(
    source: ir.Model, package: ir.Model, sequences: Sequence[Sequence[int]], context: Context
) -> LayerCosts:
    """Walk over both models in step, with the weights of one layer at a time.

    Behind each layer, a branch of the source leaves with the hidden states that the package's layer has made of the
    source's own. All branches are run with one reading of the weights, up to the logits. The hidden states of a layer
    depend on the source's layers before it, and not on the package's: so its cost is its own.
    Raises ModelError where the models are not divided into the same layers.
    """
    found = LayerCosts()
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(LayerByLayer(source, sequences, context))
        own = stack.enter_context(LayerByLayer(package, sequences, context))
        names = _names(plain.segments, own.segments)
        branches: dict[str, LayerByLayer] = {}
        progress = stack.enter_context(context.progress.task("comparing layers", len(names), "layer"))
        for at, name in enumerate(names[:-1]):
            behind = _package_layer(plain, own, at)
            plain.advance(plain.segments[at], [*branches.values()])
            branches[name] = stack.enter_context(plain.branch())
            branches[name].take_hidden(plain.segments[at], behind)
            found.error[name] = _relative_error(
                plain.hidden_after(plain.segments[at]), own.hidden_after(own.segments[at])
            )
            if not at and found.error[name] > UNRELATED:
                raise ModelError(
                    "the package's hidden states have nothing in common with those of its source, so layers of one "
                    "cannot stand in the other",
                    cure="measure a package that was made without --prepare rotate",
                )
            progress.advance(1)
        with _injected(plain, own, len(names) - 1) as head:
            found.divergence, found.whole = _divergences(plain, branches, own, head, sequences, context)
        progress.advance(1)
    return found


def _names(ours: Sequence[Segment], theirs: Sequence[Segment]) -> list[str]:
    if [each.block for each in ours] != [each.block for each in theirs]:
        raise ModelError(
            f"the package has {counted(len(theirs) - 2, 'layer')}, and the reference has {len(ours) - 2}",
            cure="compare the package with the model that it was made from",
        )
    return ["embedding", *(f"layer={each.block}" for each in ours[1:-1]), HEAD]


def _package_layer(plain: LayerByLayer, own: LayerByLayer, at: int) -> Hidden:
    """What the package's layer makes of the source's hidden states. The package's own run is advanced with it."""
    if not at:
        own.advance(own.segments[0])
        return own.hidden_after(own.segments[0])
    with _injected(plain, own, at) as injected:
        own.advance(own.segments[at], [injected])
        return [
            {name: np.array(array) for name, array in each.items()} for each in injected.hidden_after(own.segments[at])
        ]


def _injected(plain: LayerByLayer, own: LayerByLayer, at: int) -> LayerByLayer:
    """The package's run, with the source's hidden states, in front of a segment."""
    branch = own.branch()
    try:
        branch.take_hidden(own.segments[at - 1], plain.hidden_after(plain.segments[at - 1]))
    except BaseException:
        branch.close()
        raise
    return branch


def _divergences(
    plain: LayerByLayer,
    branches: Mapping[str, LayerByLayer],
    own: LayerByLayer,
    head: LayerByLayer,
    sequences: Tokens,
    context: Context,
) -> tuple[dict[str, float], float]:
    """The divergence of each branch and of the package's head by name, and that of the whole package."""
    chunks = sum(-(-len(each) // POSITIONS) for each in sequences)
    expected = RecordedLogits(context.scratch / "logits-of-the-source")
    ours = plain.logits(POSITIONS, [*branches.values()])
    expected.record(itertools.islice(ours, chunks))
    found = {name: _divergence(expected, itertools.islice(ours, chunks)) for name in branches}
    theirs = own.logits(POSITIONS, [head])
    whole = _divergence(expected, itertools.islice(theirs, chunks))
    found[HEAD] = _divergence(expected, theirs)
    expected.remove()
    return found, whole


def _divergence(expected: RecordedLogits, logits: Iterator[Logits]) -> float:
    """KL(expected || logits), the mean over all tokens, in nats."""
    total, tokens = 0.0, 0
    for before, after in zip(expected.chunks(), logits, strict=True):
        for one, other in zip(before, after.rows, strict=True):
            total += Distribution.of(one, "the reference").divergence(Distribution.of(other, "the package"))
        tokens += len(before)
    return max(0.0, total / tokens)


def _relative_error(plain: Hidden, own: Hidden) -> float:
    """How far hidden states are from others, relative to the size of those: the mean over all tokens."""
    errors = []
    for one, other in zip(map(_summed, plain), map(_summed, own), strict=True):
        for shape, rows in one.items():
            size = np.maximum(np.linalg.norm(rows, axis=-1), np.finfo(np.float32).tiny)
            errors.append(np.linalg.norm(other[shape] - rows, axis=-1) / size)
    return float(np.concatenate(errors).mean())


def _summed(states: Mapping[str, NDArray[Any]]) -> dict[tuple[int, ...], NDArray[np.float64]]:
    """The sum of the values of each shape, as rows. Some models hand on inputs of later layers beside hidden states."""
    found: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for array in states.values():
        rows = array.astype(np.float64).reshape(-1, array.shape[-1])
        found[array.shape] = found.get(array.shape, np.zeros_like(rows)) + rows
    return found
