"""RowsSession: an open model of another tool, which continues rows of tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import RuntimeMissing
from drupe_decoding import Generation, TextSession, Turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Step = Callable[["NDArray[np.int64]"], "NDArray[np.floating[Any]]"]
"""Reads further tokens of each row, [rows, length]; gives the logits after the last of them, [rows, vocabulary]."""


class RowsSession(TextSession):
    """It has no tokenizer and writes no text: it is there to be measured."""

    parts = ()

    @abstractmethod
    def begin(self, rows: int, room: int) -> Step:
        """Forget all tokens, and be ready for `rows` rows of at most `room` tokens each."""

    def continue_tokens(self, prompts: NDArray[np.int64], new_tokens: int) -> Iterator[NDArray[np.integer[Any]]]:
        rows, length = prompts.shape
        step = self.begin(rows, length + new_tokens)
        tokens = prompts
        for _ in range(new_tokens):
            tokens = step(tokens).argmax(-1)[:, None]
            yield tokens[:, 0]

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        raise _only_measured()

    def conversation(
        self, messages: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> str:
        raise _only_measured()


def _only_measured() -> RuntimeMissing:
    return RuntimeMissing("models of other tools are only measured, and write no text here", cure="drupe benchmark")
