"""How a command shows what it found: in columns for a person, as JSON for a program. Numbers are numbers in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
IN_BYTES = ("bytes", "memory")
"""How the label of a number ends that is one of bytes."""

NOTHING = {"device": "not here", "runtime": "not installed"}
"""What a person is told where there is none of something."""


def print_json(found: Any) -> None:
    """Labels become keys without spaces."""
    print(json.dumps(_with_keys(found), indent=1, default=str))


def print_facts(facts: Mapping[str, Any]) -> None:
    """One fact a line: its label and its value."""
    from drupe_console import table

    table((label, _text(label, value)) for label, value in facts.items())


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """One record a line, under a head of labels."""
    from drupe_console import table

    rows = [[_text(label, value) for label, value in record.items()] for record in records]
    table(rows, list(records[0]) if records else ())


def _with_keys(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {str(label).replace(" ", "_"): _with_keys(value) for label, value in found.items()}
    return [_with_keys(each) for each in found] if isinstance(found, list | tuple) else found


def _text(label: str, value: Any) -> str:
    from drupe_console import size

    if value is None or value == []:
        return NOTHING.get(label, "-")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {size(count)}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return size(value) if label.endswith(IN_BYTES) else f"{value:,}"
    return str(value)
