"""Documents of a file or folder on this machine."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from drupe.api import UsageError
from drupe_text.folders import data_files
from drupe_text.reference import Place
from drupe_text.row_fields import field_of, is_empty

BATCH = 1000
"""How many rows are read at a time."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Reader = Callable[[Path, str | None, int], Iterator[str]]


def documents(place: Place, splits: Sequence[str], limit: int) -> Iterator[str]:
    """The texts of a place, in the split that it names, or in the first of `splits` that exists.

    At most `limit` bytes of a file are read at once. Raises UsageError for a place that cannot be read.
    """
    try:
        for path, reader in _files(place, splits):
            yield from reader(path, place.field, limit)
    except OSError as error:
        where = error.filename or place.name
        raise UsageError(f"the text cannot be read: {error.strerror or error}", where=where) from error


def state_of(place: Place) -> tuple[object, ...]:
    """A value that changes when a file of the place changes."""
    paths = sorted(place.path.rglob("*")) if place.path.is_dir() else [place.path]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def _files(place: Place, splits: Sequence[str]) -> list[tuple[Path, Reader]]:
    """The files to read, in order, each with the function that reads it."""
    if not place.path.is_dir():
        if place.split is not None:
            raise UsageError(
                f"'@{place.split}' names a split, but a file has no splits",
                where=place.name,
                cure=f"leave @{place.split} out",
            )
        return [(place.path, READERS.get(place.path.suffix.lower(), _plain))]
    paths = data_files(place.path, place.split, splits, (".parquet", ".arrow", ".jsonl", ".txt"))
    return [(path, READERS.get(path.suffix.lower(), _plain)) for path in paths]


def _plain(path: Path, field: str | None, limit: int) -> Iterator[str]:
    if field is not None:
        raise UsageError(f"a file of plain text has no field '{field}'", where=path, cure=f"leave #{field} out")
    yield _decoded(path, limit)


def _json_rows(path: Path, field: str | None, limit: int) -> Iterator[str]:
    """The rows of a JSON array of objects, or of JSON lines, which some call .json as well."""
    if not _decoded(path, 64).lstrip().startswith("["):
        yield from _json_lines(path, field, limit)
        return
    if path.stat().st_size > limit:
        cure = "write one JSON object on each line, and name the file .jsonl"
        raise UsageError(f"a JSON array of more than {limit} bytes cannot be read in part", where=path, cure=cure)
    try:
        rows = json.loads(_decoded(path, limit))
    except ValueError as error:
        raise UsageError(f"the file is not JSON: {error}", where=path, cure=_LINES) from error
    yield from (text for number, row in enumerate(rows, 1) if (text := _text_of(row, field, path, f"item {number}")))


def _json_lines(path: Path, field: str | None, limit: int) -> Iterator[str]:
    whole = path.stat().st_size <= limit
    lines = _decoded(path, limit).split("\n")
    for number, line in enumerate(lines if whole else lines[:-1], 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"line {number} is not JSON: {_complaint(error)}", where=path, cure=_OBJECTS) from error
        if text := _text_of(row, field, path, f"line {number}"):
            yield text


def _complaint(error: ValueError) -> str:
    """What is wrong with a line; the number of the line is the file's, which json does not know."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} in column {error.colno}"
    return str(error)


_OBJECTS = 'write one JSON object on each line: {"text": "..."}'
_LINES = 'write a list of objects, [{"text": "..."}, ...], or one JSON object on each line'


def _text_of(row: Any, field: str | None, path: Path, place: str) -> str:
    """The text of a row, which may be a plain string; empty where it is null."""
    if isinstance(row, str) and field is None:
        return row
    if not isinstance(row, dict):
        raise UsageError(f"{place} is not a JSON object", where=path, cure=_OBJECTS)
    if is_empty(row, field):
        return ""
    text: str = row[field_of(row, field, f"{path}, {place}")]
    return text


def _decoded(path: Path, limit: int) -> str:
    """The first `limit` bytes of a file, as UTF-8; line ends become newlines."""
    with path.open("rb") as file:
        data = file.read(limit)
        whole = not file.read(1)
    try:
        text, _ = codecs.utf_8_decode(data, "strict", whole)  # leaves out a character that the limit cuts in two
    except UnicodeDecodeError as error:
        encoding = "utf-16" if data.startswith(UTF16) else "latin1"
        raise UsageError(
            f"the text is not in UTF-8: byte {error.start} is {data[error.start]:#04x}",
            where=path,
            cure=f"convert it: iconv -f {encoding} -t utf-8, with the encoding that the file has",
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _parquet(path: Path, field: str | None, limit: int) -> Iterator[str]:
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _texts(file.iter_batches(BATCH), field, path)
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"the file is not a complete parquet file: {error}", where=path) from error


def _arrow(path: Path, field: str | None, limit: int) -> Iterator[str]:
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.OSFile(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
            yield from _texts(batches, field, path)
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"the file is not a complete Arrow stream: {error}", where=path) from error


def _texts(batches: Any, field: str | None, path: Path) -> Iterator[str]:
    """One field of the rows in record batches."""
    found: str | None = None
    for batch in batches:
        if batch.num_rows:
            found = found or field_of(_strings(batch.schema), field, path)
            yield from (text for text in batch.column(found).to_pylist() if text is not None)


def _strings(schema: Any) -> dict[str, str | None]:
    """A sample row for `field_of`: a string for each column of strings, because real rows may hold nulls."""
    from pyarrow import types

    def is_string(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(kind) or types.is_large_string(kind))

    return {column.name: "" if is_string(column.type) else None for column in schema}


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        cure = "pip install 'drupe-text[datasets]', or give text or JSON lines"
        raise UsageError("reading the file needs pyarrow, which is not installed", where=path, cure=cure) from error
    return pyarrow


READERS: dict[str, Reader] = {
    ".json": _json_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""The reader of each suffix; files with any other suffix are plain text."""
