"""The header of a GGUF file: metadata and places of tensors. Each length is checked against the file before its use.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Record, counted
from drupe_files import unreadable
from drupe_packed.ggml_types import READ, TYPES, GgmlType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT, MOST_ALIGNMENT = 32, 1 << 20
MOST_DIMENSIONS = 4
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "B", 10: "Q", 11: "q", 12: "d"}
AGAIN = "download the file again: it is cut short or damaged"
OTHER_TYPES = "use a file of Q4_0 or Q8_0, or the checkpoint that it was made from"


class TensorInfo(Record):
    """A tensor as the header describes it. shape: rows first, as in numpy. offset: from the start of the file."""

    name: str
    kind: GgmlType
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.kind.values * self.kind.nbytes


class Header(Record):
    """data_start: where the header ends and tensors begin."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    data_start: int


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file. Raises ModelError where the header and the file do not agree."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).header()
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # raised by mmap for an empty file
        raise ModelError(f"'{path.name}' is empty", where=path, cure=AGAIN) from error


class _Reader:
    """Reads the file from front to back. Only `_take` touches the bytes, and it checks that they are there."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.position = path, content, 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise self._bad("it does not begin with GGUF")
        if (version := self._number("I")) not in VERSIONS:
            raise self._bad(f"its version is {version}; supported: {' and '.join(map(str, VERSIONS))}")
        tensors, keys = self._count(24), self._count(13)
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise self._bad(f"it has the key '{key}' twice")
            metadata[key] = self._value(self._number("I"))
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= MOST_ALIGNMENT or alignment & (alignment - 1):
            raise self._bad(f"its alignment is {alignment!r}, which is not a power of two up to {MOST_ALIGNMENT}")
        infos = [self._tensor(alignment) for _ in range(tensors)]
        start = -(-self.position // alignment) * alignment
        return Header(metadata, self._placed(infos, start), start)

    def _tensor(self, alignment: int) -> TensorInfo:
        name = self._string()
        count = self._number("I")
        if not 0 < count <= MOST_DIMENSIONS:
            raise self._bad(f"the tensor '{name}' has {count} dimensions")
        shape = tuple(self._number("Q") for _ in range(count))[::-1]
        number, offset = self._number("I"), self._number("Q")
        kind = TYPES.get(number, GgmlType(f"number {number}"))
        if not kind.nbytes:
            raise ModelError(
                f"the tensor '{name}' is of type {kind.name}; supported types: {', '.join(READ)}",
                where=self.path,
                cure=OTHER_TYPES,
            )
        if 0 in shape or shape[-1] % kind.values:
            raise self._bad(f"the tensor '{name}' of type {kind.name} has the impossible shape {list(shape)}")
        if kind.values > 1 and count != 2:
            raise self._bad(f"the tensor '{name}' of type {kind.name} is not a matrix: its shape is {list(shape)}")
        if offset % alignment:
            raise self._bad(f"the tensor '{name}' lies at {offset}, which is not a multiple of {alignment}")
        return TensorInfo(name, kind, shape, offset)

    def _placed(self, infos: list[TensorInfo], start: int) -> dict[str, TensorInfo]:
        """The tensors by name, at offsets from the start of the file. They must not overlap or end beyond the file."""
        placed: dict[str, TensorInfo] = {}
        end, before = start, "the header"
        for info in sorted(infos, key=lambda info: info.offset):
            here = TensorInfo(info.name, info.kind, info.shape, start + info.offset)
            if info.name in placed:
                raise self._bad(f"it has the tensor '{info.name}' twice")
            if here.offset < end:
                raise self._bad(f"the tensor '{info.name}' overlaps with '{before}'")
            end, before = here.offset + here.nbytes, info.name
            if end > len(self.content):
                raise self._bad(
                    f"the tensor '{info.name}' ends {counted(end - len(self.content), 'byte')} after the file's end"
                )
            placed[info.name] = here
        return placed

    def _value(self, kind: int) -> Any:
        if kind == ARRAY:
            return self._array(self._number("I"))
        return self._scalar(kind)()

    def _array(self, kind: int) -> list[Any]:
        if kind == STRING:
            return [self._string() for _ in range(self._count(8))]
        form = NUMBERS.get(kind)
        if form is None:
            raise self._bad(f"it has an array with values of the unknown type {kind}")
        size = struct.calcsize(form)
        count = self._count(size)
        return list(struct.unpack(f"<{count}{form}", self._take(count * size)))

    def _scalar(self, kind: int) -> Callable[[], Any]:
        if kind == STRING:
            return self._string
        if kind == BOOL:
            return lambda: bool(self._number("B"))
        if kind not in NUMBERS:
            raise self._bad(f"it has a value of the unknown type {kind}")
        return lambda: self._number(NUMBERS[kind])

    def _string(self) -> str:
        """A text. Bytes that are not UTF-8 are kept as escapes: tokens may contain such bytes."""
        return self._take(self._count(1)).decode("utf-8", "surrogateescape")

    def _count(self, least: int) -> int:
        """The number of values that follow, of at least `least` bytes each. The file must have room for them."""
        count: int = self._number("Q")
        if count * least > len(self.content) - self.position:
            raise self._bad(
                f"at byte {self.position} it announces {counted(count, 'value')}, and the file is too short for them"
            )
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(form)))[0]

    def _take(self, nbytes: int) -> bytes:
        taken = self.content[self.position : self.position + nbytes]
        if len(taken) < nbytes:
            raise self._bad(f"it ends at byte {len(self.content)}, within its header")
        self.position += nbytes
        return taken

    def _bad(self, problem: str) -> ModelError:
        return ModelError(f"'{self.path.name}' is not a sound GGUF file: {problem}", where=self.path, cure=AGAIN)
