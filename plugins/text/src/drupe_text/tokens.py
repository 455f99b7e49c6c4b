"""TextTokenizer: a model's own tokenizer, and a text in its tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tokenizers

from drupe.api import ModelError, UsageError
from drupe_text.text import Text

FILE = "tokenizer.json"
CHARACTERS = 64
"""More than a token has: so many characters are looked at for each token that is wanted, before all of them are."""
LARGEST_PIECE = 1 << 20
"""Characters that go through the tokenizer at once; its own memory is many times as much."""
SHUFFLED_PIECE = 8192
"""Characters of the pieces that a seed puts in another order."""


class TextTokenizer:
    """The tokenizer.json of a checkpoint or package: the file, or a folder that holds it."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise ModelError("there is no tokenizer.json, so no text can be measured", where=path.parent)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more special
            raise ModelError(f"tokenizer.json cannot be read: {error}", where=path) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def among(cls, files: Mapping[str, Path | bytes], scratch: Path) -> TextTokenizer:
        """The tokenizer.json among the files of a package that is not written yet. scratch: a folder for its contents.

        Raises ModelError where there is none.
        """
        held = files.get(FILE)
        if held is None:
            raise ModelError("the model has no tokenizer.json, so it cannot be calibrated with text")
        if isinstance(held, bytes):
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / FILE
            path.write_bytes(held)
            held = path
        return cls(held)

    @property
    def beginning(self) -> list[int]:
        """The tokens that it puts before every text: the beginning of sequence, or nothing."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        return whole[: whole.index(plain[0])] if plain and plain[0] in whole else []

    def sequences(
        self, text: Text, count: int, length: int, seed: int | None = None, *, least: int | None = None
    ) -> list[list[int]]:
        """`count` sequences of `length` tokens each, the beginning included, no two of the same place in the text.

        Without a seed they follow one another. least: tokens that do where the text has no more; there are fewer
        sequences then, and the last may be shorter. Raises UsageError for a text that has too few.
        """
        beginning = self.beginning[: length - 1]
        size = length - len(beginning)
        tokens = self.tokens(
            text,
            count * size,
            seed,
            least=least,
            fewer=lambda found: f"{text.option.removesuffix('data')}sequences {found // size}" if found >= size else "",
        )
        return [[*beginning, *tokens[at : at + size]] for at in range(0, len(tokens), size)]

    def tokens(
        self,
        text: Text,
        count: int,
        seed: int | None = None,
        *,
        least: int | None = None,
        fewer: Callable[[int], str] = lambda found: "",
    ) -> list[int]:
        """`count` tokens of a text: its first, or with a seed, those of its pieces in another order.

        least: how many do where there are no more; by default all are needed. fewer: options that ask for as many as
        were found, "" where nothing does. Raises UsageError for a text that has too few.
        """
        found: list[int] = []
        for piece in _pieces(text.read(), count, seed):
            found += self._encode(piece)
            if len(found) >= count:
                return found[:count]
        if len(found) >= (count if least is None else least):
            return found
        ways = [f"a longer text ({text.option} FILE)", fewer(len(found))]
        raise UsageError(
            f"the text has {len(found)} tokens, and {count} are wanted",
            where=text.name,
            cure=" or ".join(filter(None, ways)),
        )

    def prompt(self, text: Text, count: int) -> str:
        """The beginning of a text, of about `count` tokens."""
        prompt: str = self._tokenizer.decode(self.tokens(text, count), skip_special_tokens=True)
        return prompt

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


def _pieces(text: str, count: int, seed: int | None) -> Iterator[str]:
    """A text in pieces that end with a line where they can: in order, or as a seed shuffles them."""
    if seed is None:
        yield from _cut(text, min(count * CHARACTERS, LARGEST_PIECE))
    else:
        pieces = list(_cut(text, SHUFFLED_PIECE))
        # random.shuffle may change between versions of Python, sorting by random numbers does not.
        draw = random.Random(seed)
        keys = [draw.random() for _ in pieces]
        yield from (piece for _, piece in sorted(zip(keys, pieces, strict=True)))


def _cut(text: str, size: int) -> Iterator[str]:
    """Consecutive pieces of at most `size` characters; each ends behind a line's end, where it has one."""
    start = 0
    while start < len(text):
        stop = start + size
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop
