"""Documents: a JSON, YAML or TOML file as plain values; what is wrong with one is said with line and column."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import ModelError, PlanError, UsageError

STANDARD_INPUT = "standard input"
SUFFIXES = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}


def read_document(file: str) -> dict[str, Any]:
    """The mapping in a file, or in STANDARD_INPUT. A name without one of SUFFIXES: JSON, or else YAML.

    Raises UsageError for a file that is not there, is empty, is no such document, or holds no mapping.
    """
    text = _text(file)
    if not text.strip():
        raise UsageError("the file is empty", where=file, cure="drupe run takes a plan or a workflow file")
    form = SUFFIXES.get(Path(file).suffix.lower()) or ("JSON" if text.lstrip().startswith("{") else "YAML")
    document = _READERS[form](text, file)
    if not isinstance(document, dict):
        held = {"list": "a list", "str": "a text", "NoneType": "nothing"}.get(type(document).__name__, "one value")
        raise UsageError(f"the file holds {held}, and a plan or a workflow is a mapping of keys", where=file)
    if strange := [key for key in document if not isinstance(key, str)]:
        raise UsageError(f"the key {strange[0]!r} is not text", where=file, cure="put it in quotes")
    return document


def _text(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"the file is not text in UTF-8: byte {error.start}", where=file) from error
    except FileNotFoundError as error:
        raise UsageError(f"there is no file '{file}'", cure="name a plan or a workflow file") from error
    except IsADirectoryError as error:
        raise UsageError(
            "that is a folder", where=file, cure=f"{file.rstrip('/')}/drupe.json, if it is a package"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}", where=file) from error


def _json(text: str, file: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(pairs, file))
    except json.JSONDecodeError as error:
        raise _malformed("JSON", file, error.msg, error.lineno, error.colno) from error
    except RecursionError as error:
        raise UsageError("the file is nested too deeply", where=file) from error


def _without_repeats(pairs: Iterable[tuple[str, Any]], file: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"the key '{key}' stands there twice", where=file, cure="leave one of them out")
        found[key] = value
    return found


def _yaml(text: str, file: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """PyYAML keeps the last of two equal keys in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for at, key in enumerate(keys):
                if key in keys[:at]:
                    mark = node.value[at][0].start_mark
                    place = f"{file}:{mark.line + 1}:{mark.column + 1}"
                    raise UsageError(f"the key '{key}' stands there twice", where=place, cure="leave one of them out")
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    try:
        return yaml.load(text, Loader)  # a SafeLoader: it makes plain values only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it cannot be read"
        raise _malformed("YAML", file, what, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UsageError(f"the file is not YAML: {' '.join(str(error).split())}", where=file) from error
    except (ValueError, TypeError, RecursionError) as error:  # a date that there is not, a mapping as a key
        raise UsageError(f"the file is not YAML: {error}", where=file) from error


def _toml(text: str, file: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # "Expected '=' after a key in a key/value pair (at line 1, column 5)"
        what, _, place = str(error).rpartition(" (at ")
        numbers = [int(word) for word in place.rstrip(")").replace(",", "").split() if word.isdigit()]
        line, column = numbers if len(numbers) == 2 else (len(text.splitlines()), 1)
        raise _malformed("TOML", file, what or str(error), line, column) from error


def _malformed(form: str, file: str, what: str, line: int, column: int) -> UsageError:
    return UsageError(f"the file is not {form}: {what}", where=f"{file}, line {line}, column {column}")


_READERS: dict[str, Callable[[str, str], Any]] = {"JSON": _json, "YAML": _yaml, "TOML": _toml}


@contextmanager
def located(file: str, model_at: str | None = None) -> Iterator[None]:
    """Let the error of a plan or a workflow that cannot be carried out say in which file it stands.

    model_at: the key of the file that names the model, for errors of the model; None where the file does not name it.
    """
    try:
        yield
    except ModelError as error:
        if model_at:
            error.where = f"{error.where}, named in {file}, at {model_at}" if error.where else f"{file}, at {model_at}"
        raise
    except (UsageError, PlanError) as error:
        where = (error.where or "").replace("--set ", "at settings.")  # as the key is called in a file
        if not where.startswith(file):
            error.where = ", ".join(filter(None, (file, where)))
        raise
