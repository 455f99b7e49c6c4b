"""`drupe embed`: the embeddings of texts, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import drupe
from drupe.api import UsageError, counted

TEXTS, RUNNING = "Model and texts", "Running"


def embed(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="Folder that `drupe optimize` made.", rich_help_panel=TEXTS)
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="The texts; - reads one a line from standard input."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="<path>", help="A file with one text a line.", rich_help_panel=TEXTS)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="<name>",
            help="The model's prompt to put before each text, by its name.  [default: the model's default, if any]",
            show_default=False,
            rich_help_panel=TEXTS,
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="<name>", help="Run on this provider, not the one it was made for.", rich_help_panel=RUNNING
        ),
    ] = None,
) -> None:
    """Give the embeddings of texts as JSON: a list with a list of numbers for each text."""
    from drupe_embedding import embedding_session

    wanted = _all(texts or [], file)
    if not wanted:
        raise UsageError("no text is given", cure="drupe embed PACKAGE TEXT, or --file PATH")
    with drupe.open(package, provider=provider) as session:
        found = embedding_session(session).embed(wanted, prompt)
    json.dump([[float(f"{value:.7g}") for value in row] for row in found], sys.stdout)
    print()


def _all(texts: list[str], file: Path | None) -> list[str]:
    """The texts of the command line, of standard input and of a file."""
    found = _lines(sys.stdin.read(), "standard input") if texts == ["-"] else list(texts)
    return found if file is None else found + _lines(_content(file), str(file))


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"the file is not text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        raise UsageError(what, where=str(file), cure="save it as UTF-8") from error
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise UsageError(what, where=str(file), cure="name a file with one text a line: --file PATH") from error


def _lines(content: str, where: str) -> list[str]:
    """The texts of a file, one a line. Raises UsageError for a line without text: it would get an embedding as well."""
    if not content:
        raise UsageError("there is no text", where=where, cure="give one text a line")
    lines = content.removesuffix("\n").split("\n")
    if blank := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        more = f" (and {counted(len(blank) - 1, 'more line')})" if len(blank) > 1 else ""
        what = f"line {blank[0]} holds no text{more}"
        raise UsageError(what, where=where, cure="remove the lines without text: there is one embedding for each line")
    return lines
