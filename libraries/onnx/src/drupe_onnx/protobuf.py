"""Walking over protobuf's bytes, field by field: https://protobuf.dev/programming-guides/encoding/"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

Bytes: TypeAlias = bytes | mmap.mmap
NUMBER = -1
"""Stands for the end of a field that is a number."""
_VARINT, _EIGHT, _MESSAGE, _FOUR = 0, 1, 2, 5  # wire types

Rewrite = Callable[[Bytes, int, int], bytes | None]
"""Makes the new content of a field, from the bytes and the field's range in them; None removes the field."""


class Malformed(ValueError):
    """The bytes are not a message."""


def fields(data: Bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: field number, start and end of the bytes; for a number, its value and NUMBER."""
    while start < stop:
        tag, start = varint(data, start, stop)
        kind = tag & 7
        if kind == _VARINT:
            value, start = varint(data, start, stop)
            yield tag >> 3, value, NUMBER
            continue
        first, start = _extent(data, tag, start, stop)
        if kind == _MESSAGE:
            yield tag >> 3, first, start


def messages(data: Bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that are not numbers."""
    return (each for each in fields(data, start, stop) if each[2] != NUMBER)


def packed(data: Bytes, start: int, stop: int) -> Iterator[int]:
    """The numbers of a packed field."""
    while start < stop:
        value, start = varint(data, start, stop)
        yield value


def varint(data: Bytes, start: int, stop: int) -> tuple[int, int]:
    """A number, and where it ends."""
    if start < stop and (byte := data[start]) < 0x80:  # nearly all of them
        return byte, start + 1
    value = 0
    for shift in range(0, 70, 7):
        if start >= stop:
            raise Malformed
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise Malformed


def rewritten(data: Bytes, start: int, stop: int, rewrites: Mapping[int, Rewrite]) -> bytes:
    """A message in which the fields with some field numbers are made anew, and all others are unchanged."""
    made = bytearray()
    while start < stop:
        begin = start
        tag, start = varint(data, start, stop)
        if tag & 7 == _VARINT:
            _, start = varint(data, start, stop)
            made += data[begin:start]
            continue
        first, start = _extent(data, tag, start, stop)
        rewrite = rewrites.get(tag >> 3) if tag & 7 == _MESSAGE else None
        if rewrite is None:
            made += data[begin:start]
        elif (contents := rewrite(data, first, start)) is not None:
            made += message(tag >> 3, contents)
    return bytes(made)


def message(number: int, contents: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    return _as_varint(number << 3 | _MESSAGE) + _as_varint(len(contents)) + contents


def whole_number(number: int, value: int) -> bytes:
    """A field that holds a whole number that is not negative."""
    return _as_varint(number << 3 | _VARINT) + _as_varint(value)


def _extent(data: Bytes, tag: int, start: int, stop: int) -> tuple[int, int]:
    """The range of the content of a field that is not a varint."""
    kind = tag & 7
    if kind == _MESSAGE:
        length, start = varint(data, start, stop)
    else:
        length = {_EIGHT: 8, _FOUR: 4}.get(kind, stop)
    if tag < 8 or start + length > stop:
        raise Malformed
    return start, start + length


def _as_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
