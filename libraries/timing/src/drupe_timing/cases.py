"""Cases: the shapes that packages are measured on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from drupe.api import Record

BATCH, LENGTH = "batch", "length"
"""What drupe.api.Task.samples calls rows and their tokens."""
PROMPT = 128
"""Tokens of a prompt, and of a row, where the user names no number."""
ANSWER = 64
"""Tokens of an answer, where the user names no number."""


class Case(Record):
    """The sizes of a run, by the name of the axis."""

    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def by_name(self) -> dict[str, int]:
        return dict(self.sizes)

    @property
    def rows(self) -> int:
        return self.by_name.get(BATCH, 1)

    @property
    def tokens(self) -> int:
        """The tokens of a prompt, for a model that generates text."""
        return self.by_name.get(LENGTH, PROMPT)

    def label(self, length: str = LENGTH) -> str:
        """The sizes in words ("length 128, batch 4"); empty where all are the model's own. length: the word for it."""
        return ", ".join(f"{length if name == LENGTH else name} {size}" for name, size in self.sizes)

    @property
    def key(self) -> str:
        """The sizes as a part of a metric's name ("length=128,batch=4")."""
        return ",".join(f"{name}={size}" for name, size in self.sizes)


def cases_of(
    lengths: tuple[int, ...] | None, batches: tuple[int, ...] | None, sizes: Mapping[str, int]
) -> tuple[Case, ...]:
    """All combinations. None leaves an axis to the model."""
    fixed = tuple(sizes.items())
    with_length: list[Any] = [()] if lengths is None else [((LENGTH, each),) for each in lengths]
    with_batch: list[Any] = [()] if batches is None else [((BATCH, each),) for each in batches]
    return tuple(Case((*length, *batch, *fixed)) for length, batch in itertools.product(with_length, with_batch))
