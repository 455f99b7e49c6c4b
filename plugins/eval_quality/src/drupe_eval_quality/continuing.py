"""Continuing prompts greedily: with a package, and with its source, which the package writes drafts for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from drupe.api import Context, Model
from drupe_decoding import Decoder
from drupe_layerwise import LayerByLayer
from drupe_onnx import OnnxPackage

POSITIONS = 64
"""How many tokens' logits are held at a time."""

Tokens = list[int]
Predictor = Callable[[Sequence[Tokens]], list[Tokens]]
"""Gives, for each token of each sequence, the likeliest token behind it."""


@dataclass
class Continuation:
    """A prompt, and what package and source write behind it: the likeliest tokens, up to an end token."""

    prompt: Tokens
    package: Tokens = field(default_factory=list)
    source: Tokens = field(default_factory=list)

    @property
    def alike(self) -> int:
        """How many tokens are the same before the first that differs."""
        pairs = zip(self.package, self.source, strict=False)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), len(self.source))


def continuations(
    prompts: Sequence[Tokens],
    new_tokens: int,
    ends: Collection[int],
    package: Decoder,
    source: Predictor,
    context: Context,
) -> list[Continuation]:
    """Continue prompts with up to so many tokens.

    A source that is run layer by layer reads all its weights for each run. So it does not write token by token: the
    package writes a draft, one run tells which token the source would have written at each place, and the draft is
    kept up to the first difference. What comes of it are the source's own tokens (speculative decoding, Leviathan et
    al. 2023, arXiv:2211.17192, with greedy choices).
    """
    found = [Continuation(prompt, _greedy(package, prompt, new_tokens, ends)) for prompt in prompts]
    drafts = [list(each.package) for each in found]
    with context.progress.task("continuing prompts", new_tokens * len(found), "token") as progress:
        while waiting := [at for at, draft in enumerate(drafts) if draft]:
            context.stop_if_cancelled()
            sequences = [[*found[at].prompt, *found[at].source, *drafts[at]][:-1] for at in waiting]
            for at, predicted in zip(waiting, source(sequences), strict=True):
                each, draft = found[at], drafts[at]
                kept = _accepted(draft, predicted[-len(draft) :])
                each.source += kept
                left = 0 if kept[-1] in ends else new_tokens - len(each.source)
                drafts[at] = _greedy(package, [*each.prompt, *each.source], left, ends)
                progress.advance(len(kept))
    return found


def _accepted(draft: Tokens, predicted: Tokens) -> Tokens:
    """The draft up to the first token that was not predicted, and the predicted one in its place."""
    alike = next((at for at, pair in enumerate(zip(draft, predicted, strict=True)) if pair[0] != pair[1]), len(draft))
    return predicted[: alike + 1]


def _greedy(decoder: Decoder, prompt: Tokens, new_tokens: int, ends: Collection[int]) -> Tokens:
    """The likeliest tokens behind a prompt, up to an end token."""
    written: Tokens = []
    if new_tokens:
        written.append(_likeliest(decoder, prompt)[-1])
    while written and written[-1] not in ends and len(written) < new_tokens:
        written.append(int(decoder.logits(written[-1:])[0].argmax()))
    return written


def _likeliest(decoder: Decoder, tokens: Tokens) -> Tokens:
    """The likeliest token behind each of these, from empty caches on."""
    decoder.reset()
    pieces = (tokens[start : start + POSITIONS] for start in range(0, len(tokens), POSITIONS))
    return [int(token) for piece in pieces for token in decoder.logits(piece).argmax(-1)]


@contextlib.contextmanager
def predictor(reference: Model, context: Context) -> Iterator[Predictor]:
    """What tells the likeliest tokens of a reference. A graph that was not written is run layer by layer."""
    if not isinstance(reference.payload, OnnxPackage):
        with Decoder(reference, "reference", context) as decoder:
            yield lambda sequences: [_likeliest(decoder, sequence) for sequence in sequences]
        return
    model = reference.payload.component

    def predict(sequences: Sequence[Tokens]) -> list[Tokens]:
        found: list[Tokens] = [[] for _ in sequences]
        with LayerByLayer(model, sequences, context) as layers:
            for logits in layers.logits(POSITIONS):
                found[logits.sequence] += map(int, logits.rows.argmax(-1))
        return found

    yield predict
