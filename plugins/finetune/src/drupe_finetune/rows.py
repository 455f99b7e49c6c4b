"""The rows of a data set, each with the place that it was read from."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Record, UsageError
from drupe_checkpoints.wording import listed
from drupe_files import json_value
from drupe_finetune.settings import INSTALL
from drupe_text.folders import data_files
from drupe_text.hub_datasets import library, load
from drupe_text.reference import Place, local_place

TEXT = "text"
"""The column of a text file's rows, which are its paragraphs."""
SHOWN = 5
"""How many files are named."""
AGAIN = "save or download the file again: it is cut short or damaged"
SPLITS = ("train",)
"""The split that is read where none is named."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LONGEST_FIELD = 2**31 - 1
"""Characters of a field of a CSV file; Python's own limit is 131,072, and texts are longer."""


class Row(Record):
    """where: file and line, or number. problem: why the row could not be read; empty for one that could."""

    where: str
    columns: Mapping[str, Any]
    problem: str = ""


def rows_of(reference: str) -> Iterator[Row]:
    """The rows of a file, of the files of a folder, or of a data set of the hub. Raises UsageError for no data."""
    place = local_place(str(Path(reference).expanduser()))
    if place is not None:
        for path in _files(place):
            yield from _of_file(path)
    elif Path(reference).suffix.lower() in READERS or reference.startswith((".", "/", "~")):
        raise UsageError(f"there is no file {reference}", cure="--data FILE, FOLDER or a hub id")
    else:
        yield from _of_hub(reference)


def read_as(reference: str) -> str:
    """What is read, where the reference alone does not say it: of a folder, which files; "" where it does."""
    place = local_place(str(Path(reference).expanduser()))
    if place is None:
        return ""
    files = _files(place)
    folder = place.path if place.path.is_dir() else place.path.parent
    names = listed([str(path.relative_to(folder)) for path in files], SHOWN)
    if READERS.get(files[0].suffix.lower()) is _text:
        return f"{names} is read as text, of which each paragraph is a row"
    return f"reading {names} of {folder.name}" if place.path.is_dir() else ""


def _files(place: Place) -> list[Path]:
    if place.path.is_dir():
        return data_files(place.path, place.split, SPLITS, list(READERS))
    if place.split is not None:
        raise UsageError(
            f"'@{place.split}' names a split, but a file has no splits",
            where=place.name,
            cure=f"leave @{place.split} out",
        )
    return [place.path]


def _of_hub(reference: str) -> Iterator[Row]:
    name, _, split = reference.partition("@")
    name, _, configuration = name.partition(":")
    yield from _numbered(name, load(_datasets(), name, configuration or None, split=split or "train"))


def _numbered(name: str, rows: Any) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield Row(f"{name}, row {number}", row)


def _datasets() -> Any:
    return library(UsageError("data sets of the hub need the library datasets", cure=INSTALL))


def _of_file(path: Path) -> Iterator[Row]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"data of the kind '{path.suffix}' is not read", where=path, cure=f"one of {', '.join(READERS)}"
        )
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise UsageError(f"the data cannot be read: {error.strerror or error}", where=path, cure=AGAIN) from error


def _not_utf8(path: Path) -> UsageError:
    """The error for a file whose bytes are no UTF-8, with the first line where they are none."""
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        bad = next((number for number, line in enumerate(file, 1) if not _is_utf8(line)), 1)
    encoding = "utf-16" if start in UTF16 else "latin1"
    return UsageError(
        f"line {bad} is not text in UTF-8",
        where=path,
        cure=f"convert it: iconv -f {encoding} -t utf-8, with the encoding that the file has",
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                yield Row(where, {}, "it is not JSON")
                continue
            yield Row(where, found) if isinstance(found, dict) else Row(where, {}, "it is no JSON object")


def _json(path: Path) -> Iterator[Row]:
    """An array of objects; a file that does not begin with an array is read as JSON lines."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    for number, each in enumerate(json_value(text.encode(), path.name, path, AGAIN), 1):
        where = f"{path.name}, row {number}"
        yield Row(where, each) if isinstance(each, dict) else Row(where, {}, "it is no JSON object")


def _csv(path: Path) -> Iterator[Row]:
    header: list[str] = []
    for where, fields, problem in _records(path):
        if header and problem:
            yield Row(where, {}, problem)
        elif header:
            yield _row(where, header, fields)
        elif problem:
            raise UsageError(f"its first line cannot be read: {problem}", where=path, cure=AGAIN)
        else:
            header = fields
            _refuse_equal_columns(header, path)


def _records(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """The records of a CSV file, without empty lines: where each begins, its fields, and what is wrong with it."""
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        while True:
            where = f"{path.name}:{lines.line_num + 1}"
            try:
                fields = next(lines, None)
            except csv.Error as error:
                if "end of data" in str(error):
                    what = f"the quotation marks that open at {where} are not closed, so all that follows is one field"
                    raise UsageError(what, where=path, cure="close them, or double them within a field") from error
                yield where, [], f"it is not CSV: {error}"
                continue
            if fields is None:
                return
            if fields:
                yield where, fields, ""


def _row(where: str, header: Sequence[str], fields: Sequence[str]) -> Row:
    if len(fields) == len(header):
        return Row(where, dict(zip(header, fields, strict=True)))
    return Row(where, {}, f"it has {'more' if len(fields) > len(header) else 'fewer'} fields than the header")


def _refuse_equal_columns(header: Sequence[str], path: Path) -> None:
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UsageError(f"two columns have the name '{twice}'", where=path, cure="give each column its own name")


def _parquet(path: Path) -> Iterator[Row]:
    pyarrow = _pyarrow(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}, row {number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged("parquet", number, path, error) from error


def _arrow(path: Path) -> Iterator[Row]:
    """The rows of a file that the library datasets has written."""
    pyarrow = _pyarrow(path)
    number = 0
    try:
        with pyarrow.OSFile(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}, row {number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged("Arrow", number, path, error) from error


def _damaged(kind: str, number: int, path: Path, error: Exception) -> UsageError:
    place = f" behind row {number}" if number else ""
    return UsageError(f"the {kind} file is damaged{place}: {' '.join(str(error).split())}", where=path, cure=AGAIN)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        kind = path.suffix.removeprefix(".")
        raise UsageError(f"{kind} files need the library pyarrow", where=path, cure=INSTALL) from error
    return pyarrow


def _text(path: Path) -> Iterator[Row]:
    """The paragraphs, which empty lines divide."""
    paragraph: list[str] = []
    first = 1
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate([*file, ""], 1):
            if line.strip():
                first = first if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield Row(f"{path.name}:{first}", {TEXT: "".join(paragraph).strip("\n")})
                paragraph = []


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".txt": _text,
    ".md": _text,
}
"""The kinds of files, by their suffix; in a folder, the first kind that is there counts."""
