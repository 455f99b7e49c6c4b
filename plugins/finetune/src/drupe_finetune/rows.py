"""The rows of a data set, each with the place that it was read from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Record, UsageError
from drupe_files import json_value
from drupe_finetune.settings import INSTALL
from drupe_text.hub_datasets import library, load

TEXT = "text"
"""The column of a text file's rows, which are its paragraphs."""
AGAIN = "save or download the file again: it is cut short or damaged"
LONGEST_FIELD = 2**31 - 1
"""Characters of a field of a CSV file; Python's own limit is 131,072, and texts are longer."""


class Row(Record):
    """where: file and line, or number. problem: why the row could not be read; empty for one that could."""

    where: str
    columns: Mapping[str, Any]
    problem: str = ""


def rows_of(reference: str) -> Iterator[Row]:
    """The rows of a file, of the files of a folder, or of a data set of the hub. Raises UsageError for no data."""
    path = Path(reference).expanduser()
    if path.is_dir():
        yield from _of_folder(path)
    elif path.is_file():
        yield from _of_file(path)
    elif path.suffix in READERS or reference.startswith((".", "/", "~")):
        raise UsageError(f"there is no file {reference}", cure="--data FILE, FOLDER or a hub id")
    else:
        yield from _of_hub(reference)


def is_text(reference: str) -> bool:
    """Whether the data is a file of text, of which each paragraph is a row."""
    path = Path(reference).expanduser()
    return path.is_file() and READERS.get(path.suffix.lower()) is _text


def _of_folder(folder: Path) -> Iterator[Row]:
    if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
        loaded = _of_disk(folder)
        yield from _numbered(folder.name, loaded["train"] if "train" in loaded and hasattr(loaded, "keys") else loaded)
        return
    for suffix in READERS:
        if found := sorted(folder.glob(f"*{suffix}")):
            for path in found:
                yield from _of_file(path)
            return
    raise UsageError(
        "the folder holds no data", where=folder, cure=f"put files of one kind into it: {', '.join(READERS)}"
    )


def _of_hub(reference: str) -> Iterator[Row]:
    name, _, split = reference.partition("@")
    name, _, configuration = name.partition(":")
    yield from _numbered(name, load(_datasets(), name, configuration or None, split=split or "train"))


def _of_disk(folder: Path) -> Any:
    """What the library datasets has saved in a folder. Raises UsageError where it cannot read it."""
    try:
        return _datasets().load_from_disk(str(folder))
    except UsageError:
        raise
    except Exception as error:  # the library documents no class of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the data set cannot be loaded: {reason}", where=folder, cure=AGAIN) from error


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
        raise UsageError("the data is not text in UTF-8", where=path, cure="save it in UTF-8") from error
    except OSError as error:
        raise UsageError(f"the data cannot be read: {error.strerror or error}", where=path, cure=AGAIN) from error


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
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            filled = filter(None, lines)
            header = next(filled, [])
            _refuse_equal_columns(header, path)
            for fields in filled:
                where = f"{path.name}:{lines.line_num}"
                if len(fields) == len(header):
                    yield Row(where, dict(zip(header, fields, strict=True)))
                else:
                    than = "more" if len(fields) > len(header) else "fewer"
                    yield Row(where, {}, f"it has {than} fields than the header")
        except csv.Error as error:
            raise UsageError(f"line {lines.line_num} is not CSV: {error}", where=path, cure=AGAIN) from error


def _refuse_equal_columns(header: Sequence[str], path: Path) -> None:
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UsageError(f"two columns have the name '{twice}'", where=path, cure="give each column its own name")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("parquet files need the library pyarrow", where=path, cure=INSTALL) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}, row {number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        place = f" behind row {number}" if number else ""
        reason = " ".join(str(error).split())
        raise UsageError(f"the parquet file is damaged{place}: {reason}", where=path, cure=AGAIN) from error


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
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
    ".md": _text,
}
"""The kinds of files, by their suffix; in a folder, the first kind that is there counts."""
