"""What `tokenizers` makes of texts, compared with what another reader of the same tokenizer makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import takewhile
from typing import Any

from drupe.api import Record, field

CONTEXT = "a"
"""A text's tokens are decoded behind those of this one: the space at the beginning of a text is a matter of its own."""
BEYOND_NAMED = 3
"""How many tokens without a row are named."""


class Reading(Record):
    """What a reader makes of texts.

    tokens: those of each text, without special tokens. begun: those of CONTEXT with special tokens. decoded: the texts
    that come back, behind that of CONTEXT; they are compared where no special token is in them, which have no text.
    """

    tokens: Sequence[Sequence[int]]
    begun: Sequence[int]
    decoded: Sequence[str]


class Difference(Record):
    """A text of which other tokens are made (`right` and `found`: their pieces), or that comes back as another text."""

    text: str
    right: Sequence[str] | str
    found: Sequence[str] | str


class Comparison(Record):
    """How many of the texts differ. begun: the two beginnings, where these differ. beyond: see `Reference`."""

    texts: int
    encoded: int = 0
    decoded: int = 0
    first_encoded: Difference | None = None
    first_decoded: Difference | None = None
    begun: Difference | None = None
    beyond: Sequence[str] = field(default_factory=list)
    beyond_count: int = 0


@dataclasses.dataclass
class Reference:
    """What `tokenizers` makes of texts.

    tokenizer: a tokenizers.Tokenizer. rows: how many rows the embedding has. own: CONTEXT's tokens, without special
    ones. beyond: the names of the first tokens that have no row in the embedding. beyond_count: how many there are.

    All that takes time is done here, so that `compared` has an answer as soon as the other reader has read.
    """

    tokenizer: Any
    texts: Sequence[str]
    rows: int | None = None
    reading: Reading = dataclasses.field(init=False)
    own: list[int] = dataclasses.field(init=False)
    beyond: list[str] = dataclasses.field(init=False)
    beyond_count: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        encodings = self.tokenizer.encode_batch([CONTEXT, *self.texts], add_special_tokens=False)
        context, *tokens = [encoding.ids for encoding in encodings]
        begun = self.tokenizer.encode(CONTEXT, add_special_tokens=True).ids
        decoded = self.tokenizer.decode_batch([context + each for each in tokens], skip_special_tokens=True)
        self.reading, self.own = Reading(tokens, begun, decoded), context
        found = [] if self.rows is None else _from(self.rows, self.tokenizer.get_vocab())
        self.beyond, self.beyond_count = [f"{name} ({number})" for number, name in found[:BEYOND_NAMED]], len(found)

    def compared(self, other: Reading | None) -> Comparison:
        """The comparison with another reader; None where there is none. Texts are compared where the tokens agree."""
        if other is None:
            return Comparison(len(self.texts), beyond=self.beyond, beyond_count=self.beyond_count)
        right, tokens = self.reading, list(zip(self.texts, self.reading.tokens, other.tokens, strict=True))
        encoded = [Difference(text, *self._pieces(mine, its)) for text, mine, its in tokens if list(mine) != list(its)]
        special = {number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        decoded = [
            Difference(text, mine, its)
            for (text, ours, theirs), mine, its in zip(tokens, right.decoded, other.decoded, strict=True)
            if list(ours) == list(theirs)
            and special.isdisjoint(ours)
            and mine.removeprefix(" ") != its.removeprefix(" ")
        ]
        alike = self._around(right.begun, special) == self._around(other.begun, special)
        begun = None if alike else Difference(CONTEXT, *self._pieces(right.begun, other.begun))
        return Comparison(
            len(self.texts), len(encoded), len(decoded), _shortest(encoded), _shortest(decoded), begun,
            self.beyond, self.beyond_count,
        )  # fmt: skip

    def _around(self, begun: Sequence[int], special: Set[int]) -> tuple[list[int], list[int]]:
        """The tokens that are put before CONTEXT and behind it, from CONTEXT with special tokens."""
        added = special | set(self.reading.begun) - set(self.own)
        ahead = list(takewhile(added.__contains__, begun))
        return ahead, list(takewhile(added.__contains__, reversed(begun[len(ahead) :])))

    def _pieces(self, *lists: Sequence[int]) -> Iterable[list[str]]:
        for tokens in lists:
            pieces = [self.tokenizer.id_to_token(token) if token >= 0 else None for token in tokens]
            yield [str(token) if piece is None else piece for token, piece in zip(tokens, pieces, strict=True)]


def _from(rows: int, vocabulary: Mapping[str, int]) -> list[tuple[int, str]]:
    """The tokens whose number is `rows` or more, by their number."""
    return sorted((number, name) for name, number in vocabulary.items() if number >= rows)


def _shortest(found: Iterable[Difference]) -> Difference | None:
    """The shortest difference, of those with a letter in the text where there are some: a reader knows these."""
    return min(found, key=_strangeness, default=None)


def _strangeness(difference: Difference) -> tuple[bool, int, str]:
    known = any(character.isascii() and character.isalpha() for character in difference.text)
    return not known, len(difference.text.encode()), difference.text


def comparison_from(document: Mapping[str, Any]) -> Comparison:
    """The comparison whose `asdict` came through JSON."""
    differences = {
        name: Difference(**held) if held else None
        for name, held in document.items()
        if name in ("first_encoded", "first_decoded", "begun")
    }
    return Comparison(**{**document, **differences})
