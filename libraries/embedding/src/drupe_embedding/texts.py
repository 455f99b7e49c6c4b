"""Embeddings of texts: prompts, tokens, batches, and the runs of a graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, UsageError, unknown
from drupe_decoding.ports import MASK, TOKENS
from drupe_embedding.description import SENTENCE_EMBEDDING, EmbeddingDescription

if TYPE_CHECKING:
    from drupe_tokenization import Tokenizer

MOST_TOKENS = 2048
"""How many tokens go through the graph at once, or more if one text is longer."""
Run = Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]]
"""Runs a graph once, on arrays by name, for the outputs of these names: `Session.run`."""


def embed_texts(
    run: Run,
    tokenizer: Tokenizer,
    description: EmbeddingDescription,
    texts: Sequence[str],
    prompt: str | None = None,
) -> NDArray[np.float32]:
    """The embedding of each text: [texts, dimension]. Raises as `EmbeddingSession.embed` does.

    Texts of one length share a batch, so no padding is computed, and no result depends on other texts.
    """
    if not description.modes:
        raise ModelError(
            "the package gives the hidden states of tokens, and no embedding: how they are pooled is not known",
            cure="make the package again with --pooling last, mean or cls, as the model's card says",
        )
    before = _prompt(description, prompt)
    rows = [tokenizer.encode_whole(before + text, description.max_length) for text in texts]
    if empty := [number for number, tokens in enumerate(rows) if not tokens]:
        raise UsageError(f"text {empty[0] + 1} is empty", cure="give texts with at least one token")
    if not rows:
        raise UsageError("no text is given", cure="give at least one text")
    found: dict[int, NDArray[np.float32]] = {}
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for length, group in itertools.groupby(order, lambda number: len(rows[number])):
        while batch := list(itertools.islice(group, max(1, MOST_TOKENS // length))):
            tokens = np.array([rows[number] for number in batch], np.int64)
            given = {TOKENS: tokens, MASK: np.ones_like(tokens)}
            found |= dict(zip(batch, run(given, [SENTENCE_EMBEDDING])[SENTENCE_EMBEDDING], strict=True))
    return np.stack([found[number] for number in range(len(rows))])


def _prompt(description: EmbeddingDescription, name: str | None) -> str:
    """The text of a prompt, or of the default prompt."""
    name = name if name is not None else description.default_prompt
    if name is None:
        return ""
    if name not in description.prompts:
        if not description.prompts:
            raise UsageError(f"the model has no prompts, so none is called '{name}'", cure="leave the prompt out")
        raise unknown("prompt", name, description.prompts)
    return description.prompts[name]
