"""A model file of sentencepiece: pieces, their scores and kinds, and how text is normalized. A protocol buffer.

The format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from drupe.api import ModelError, Record, counted
from drupe_files import unreadable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE, WORD, CHARACTER = 1, 2, 3, 4
AGAIN = "download the file again: it is cut short or damaged"

# The fields' numbers in the three messages that are read.
PIECE, TRAINER, NORMALIZER, DENORMALIZER = 1, 2, 3, 5
ALGORITHM, SUFFIX, BYTES = 3, 24, 35
RULES, CHARSMAP, DUMMY_PREFIX, FEWER_SPACES, ESCAPES = 1, 2, 3, 4, 5

Value = int | bytes


class Pieces(Record):
    """What sentencepiece knows of a tokenizer.

    texts, scores, kinds: of each piece; a piece's place is its id. algorithm: UNIGRAM, BPE, WORD or CHARACTER.
    byte_fallback: a character without a piece becomes the pieces of its bytes.
    suffix: the mark of a space stands behind a word, not before it.
    charsmap: the compiled rules of normalization. rules: the name of the set that they are.
    dummy_prefix: a space is put before a text. fewer_spaces: spaces at both ends are dropped, others are joined.
    escapes: a space becomes a mark. denormalizes: there are rules for decoding, too.
    """

    path: Path
    texts: list[str]
    scores: list[float]
    kinds: list[int]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    suffix: bool = False
    charsmap: bytes = b""
    rules: str = ""
    dummy_prefix: bool = True
    fewer_spaces: bool = True
    escapes: bool = True
    denormalizes: bool = False

    @property
    def unk(self) -> int:
        """The id of the piece that stands for what has no piece."""
        return self.kinds.index(UNKNOWN)

    def of_kind(self, *kinds: int) -> list[int]:
        """The ids of the pieces of these kinds."""
        return [number for number, kind in enumerate(self.kinds) if kind in kinds]


def is_sentencepiece(path: Path) -> bool:
    """Whether a file begins as a model of sentencepiece does. A list of tiktoken in base64 does not."""
    try:
        with path.open("rb") as file:
            return file.read(1) == bytes([PIECE << 3 | 2])
    except OSError as error:
        raise unreadable(path, error) from error


def read_pieces(path: Path) -> Pieces:
    """Read a model of sentencepiece. Raises ModelError for a file that is none, or that sentencepiece refuses."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        found = _parsed(path, content)
    except (LookupError, struct.error, ValueError) as error:
        raise ModelError(f"'{path.name}' is not a sound model of sentencepiece", where=path, cure=AGAIN) from error
    _refuse_unsound(found)
    return found


def _refuse_unsound(found: Pieces) -> None:
    """Raise the ModelError for what sentencepiece itself does not load."""
    problem = ""
    if found.kinds.count(UNKNOWN) != 1:
        problem = f"it has {counted(found.kinds.count(UNKNOWN), 'piece')} for the unknown; it must have one"
    elif len(set(found.texts)) != len(found.texts):
        seen: set[str] = set()
        twice = next(text for text in found.texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        problem = f"it has the piece {twice!r} twice"
    elif "" in found.texts:
        problem = "it has an empty piece"
    elif found.byte_fallback and found.kinds.count(BYTE) != 256:
        problem = f"it has pieces for {found.kinds.count(BYTE)} of 256 bytes"
    if problem:
        raise ModelError(
            f"'{found.path.name}' is not a sound model of sentencepiece: {problem}", where=found.path, cure=AGAIN
        )


def _parsed(path: Path, content: bytes) -> Pieces:
    texts: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    denormalizes = False
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        if number == PIECE:
            text, score, kind = _piece(value)
            texts.append(text)
            scores.append(score)
            kinds.append(kind)
        elif number == TRAINER:
            trainer.update(_fields(value))
        elif number == NORMALIZER:
            normalizer.update(_fields(value))
        elif number == DENORMALIZER:
            denormalizes = bool(dict(_fields(value)).get(CHARSMAP))
    if not texts:
        raise ValueError("no pieces")

    charsmap, rules = normalizer.get(CHARSMAP, b""), normalizer.get(RULES, b"")
    return Pieces(
        path,
        texts,
        scores,
        kinds,
        algorithm=int(trainer.get(ALGORITHM, UNIGRAM)),
        byte_fallback=bool(trainer.get(BYTES, 0)),
        suffix=bool(trainer.get(SUFFIX, 0)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        rules=rules.decode() if isinstance(rules, bytes) else "",
        dummy_prefix=bool(normalizer.get(DUMMY_PREFIX, 1)),
        fewer_spaces=bool(normalizer.get(FEWER_SPACES, 1)),
        escapes=bool(normalizer.get(ESCAPES, 1)),
        denormalizes=denormalizes,
    )


def _piece(content: bytes) -> tuple[str, float, int]:
    """Text, score and kind of a piece. Nearly all have the layout that is tried first, and there may be 250,000."""
    length = content[1]
    if content[0] == 0x0A and length < 0x80:
        rest = content[2 + length :]
        if len(rest) >= 5 and rest[0] == 0x15 and (len(rest) == 5 or (len(rest) == 7 and rest[5] == 0x18)):
            kind = rest[6] if len(rest) == 7 else NORMAL
            return content[2 : 2 + length].decode(), struct.unpack_from("<f", rest, 1)[0], kind
    fields = dict(_fields(content))
    text, score, number = fields[1], fields.get(2, b"\0\0\0\0"), fields.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(number, int):
        raise ValueError("a piece has fields of other types")
    return text.decode(), struct.unpack("<f", score)[0], number


def _fields(content: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message: number and value. Raises IndexError or ValueError where the message is not sound."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _varint(content, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            whole, position = _varint(content, position)
            yield number, whole
            continue
        length = 8 if wire == 1 else 4
        if wire == 2:
            length, position = _varint(content, position)
        elif wire not in (1, 5):
            raise ValueError(f"a field of the unknown type {wire}")
        if number == 0 or position + length > end:
            raise ValueError("a field ends after the message")
        yield number, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven bits a byte, and the position behind it."""
    byte = content[position]
    if byte < 0x80:
        return byte, position + 1
    number, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = content[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position + 1
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
