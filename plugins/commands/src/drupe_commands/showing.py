"""How a command shows what it found: in columns for a person, as JSON for a program. Numbers are numbers in JSON.

A fact may be a record with a `text`, which a person sees of it. Of a list of records, a person sees a line for each
that has a `label`, and the texts of the others one after another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
IN_BYTES = ("bytes", "memory")
"""How the label of a number ends that is one of bytes."""

NOTHING = {"device": "not here", "runtime": "not installed"}
"""What a person is told where there is none of something."""


def print_json(found: Any) -> None:
    """Labels become keys without spaces. What a person sees as the label of a record is left out."""
    print(json.dumps(_with_keys(found), indent=1, default=str))


def print_facts(facts: Mapping[str, Any]) -> None:
    """One fact a line: its label and its value."""
    from drupe_console import table

    table(row for label, value in facts.items() for row in _rows(label, value))


def _rows(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        if not all("label" in each for each in value):
            yield label, ", ".join(each["text"] for each in value)
            return
        yield from ((each["label"], each["text"]) for each in value if each["text"])
    else:
        yield label, _text(label, value)


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """One record a line, under a head of labels."""
    from drupe_console import table

    rows = [[_text(label, value) for label, value in record.items()] for record in records]
    table(rows, list(records[0]) if records else ())


def _with_keys(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {str(label).replace(" ", "_"): _with_keys(value) for label, value in found.items() if label != "label"}
    return [_with_keys(each) for each in found] if isinstance(found, list | tuple) else found


def _text(label: str, value: Any) -> str:
    from drupe_console import size

    if value is None or value == []:
        return NOTHING.get(label, "-")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and "text" in value:
        return str(value["text"])
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {size(count)}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return size(value) if label.endswith(IN_BYTES) else f"{value:,}"
    return str(value)
