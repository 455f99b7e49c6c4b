"""TextTokenizer: a model's own tokenizer, and the tokens of a text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from drupe.api import UsageError, counted
from drupe_text.text import Text
from drupe_tokenization.tokenizer_file import FILE, no_tokenizer, read_tokenizer

CHARACTERS = 64
"""Characters that are tokenized first for each wanted token: more than a token usually has. If not enough, all are."""
LARGEST_PIECE = 1 << 20
"""Characters that are tokenized at once: the tokenizer needs many times as much memory."""
SHUFFLED_PIECE, FEWEST_PIECES = 8192, 16
"""Characters of the pieces that a seed shuffles; a text that is read in order is read in steps of at least so many."""
ROOM = 8
"""Characters of a piece for each token of a sequence: about twice what most texts need."""


class TextTokenizer:
    """The tokenizer.json of a checkpoint or package: the file, or a folder that holds it."""

    def __init__(self, path: str | Path) -> None:
        self._tokenizer = read_tokenizer(Path(path), "be measured on a text")

    @classmethod
    def among(cls, files: Mapping[str, Path | bytes], scratch: Path) -> TextTokenizer:
        """The tokenizer.json among the files of a package that is not written yet. scratch: a folder to write it to.

        Raises ModelError where there is no tokenizer.json.
        """
        held = files.get(FILE)
        if held is None:
            raise no_tokenizer("be calibrated on a text")
        if isinstance(held, bytes):
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / FILE
            path.write_bytes(held)
            held = path
        return cls(held)

    @property
    def beginning(self) -> list[int]:
        """The tokens that the tokenizer puts before every text: the beginning of sequence, or none."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        return whole[: whole.index(plain[0])] if plain and plain[0] in whole else []

    @property
    def end(self) -> list[int]:
        """The tokens that the tokenizer puts behind every text; none for most decoders."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        return whole[whole.index(plain[-1]) + 1 :] if plain and plain[-1] in whole else []

    def sequences(
        self, text: Text, count: int, length: int, seed: int | None = None, *, least: int | None = None
    ) -> list[list[int]]:
        """`count` sequences of `length` tokens each, the beginning included, from different places in the text.

        Without a seed they follow one another. With a seed, each comes from another piece of the text as long as there
        are enough pieces, because neighbouring sequences are alike. least: how many tokens are enough where the text
        has no more; there are fewer sequences then, and the last may be shorter. Raises UsageError for too few tokens.
        """
        beginning = self.beginning[: length - 1]
        size = length - len(beginning)
        drawn = self._in_order(text, count * size) if seed is None else self._drawn(text, size, seed)
        tokens = _first(drawn, count * size)
        fewer = f"{text.option.removesuffix('data')}sequences {len(tokens) // size}" if len(tokens) >= size else ""
        _refuse_short(text, tokens, count * size, least, fewer)
        return [[*beginning, *tokens[at : at + size]] for at in range(0, len(tokens), size)]

    def tokens(
        self,
        text: Text,
        count: int,
        seed: int | None = None,
        *,
        least: int | None = None,
        fewer: Callable[[int], str] = lambda found: "",
        reason: str = "",
    ) -> list[int]:
        """`count` tokens of a text: the first ones, or with a seed, those of its shuffled pieces.

        least: how many tokens are enough where the text has no more; by default all are needed. fewer: options that
        ask for as many tokens as were found, or "". reason: why so many tokens are needed, where the user asked for
        another number. Raises UsageError for a text with too few tokens.
        """
        size = min(SHUFFLED_PIECE, -(-len(text.read()) // FEWEST_PIECES))
        shuffled = (self._encode(piece) for piece in _shuffled(text, size, seed or 0))
        found = _first(self._in_order(text, count) if seed is None else shuffled, count)
        _refuse_short(text, found, count, least, fewer(len(found)), reason)
        return found

    def _in_order(self, text: Text, count: int) -> Iterator[list[int]]:
        """A text's tokens from the first on, in steps of somewhat more than so many tokens."""
        return map(self._encode, _cut(text.read(), min(count * CHARACTERS, LARGEST_PIECE)))

    def _drawn(self, text: Text, size: int, seed: int) -> Iterator[list[int]]:
        """A text's tokens in the order of a seed: `size` from each piece, then `size` more of each, then the rest."""
        rests: list[list[int]] = []
        for piece in _shuffled(text, max(SHUFFLED_PIECE, ROOM * size), seed):
            rests.append(self._encode(piece))
            if len(rests[-1]) >= size:
                yield rests[-1][:size]
        while any(len(rest) >= size for rest in rests):
            rests = [rest[size:] if len(rest) >= size else rest for rest in rests]
            yield from (rest[:size] for rest in rests if len(rest) >= size)
        yield from rests

    def prompt(self, text: Text, count: int) -> str:
        """The beginning of a text, of about `count` tokens."""
        prompt: str = self._tokenizer.decode(self.tokens(text, count), skip_special_tokens=True)
        return prompt

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


def _first(parts: Iterable[list[int]], count: int) -> list[int]:
    """The first so many tokens, or all where there are fewer."""
    found: list[int] = []
    for part in parts:
        found += part
        if len(found) >= count:
            break
    return found[:count]


def _refuse_short(
    text: Text, found: Sequence[int], wanted: int, least: int | None, fewer: str, reason: str = ""
) -> None:
    """Raise UsageError for a text with too few tokens. fewer: the option that asks for as many as were found, or ""."""
    needed = wanted if least is None else least
    if len(found) < needed:
        raise UsageError(
            f"the text has {counted(len(found), 'token')}, but {needed} are needed" + (f": {reason}" if reason else ""),
            where=text.name,
            cure=" or ".join(filter(None, [f"a longer text ({text.option} FILE)", fewer])),
        )


def _shuffled(text: Text, size: int, seed: int) -> list[str]:
    """The pieces of a text in the order that a seed gives.

    The result of random.shuffle may change between versions of Python; sorting by random numbers does not change.
    """
    pieces = list(_cut(text.read(), size))
    draw = random.Random(seed)
    keys = [draw.random() for _ in pieces]
    return [piece for _, piece in sorted(zip(keys, pieces, strict=True))]


def _cut(text: str, size: int) -> Iterator[str]:
    """Consecutive pieces of at most `size` characters; a piece with a line end in it ends after its last one."""
    start = 0
    while start < len(text):
        stop = start + size
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop
