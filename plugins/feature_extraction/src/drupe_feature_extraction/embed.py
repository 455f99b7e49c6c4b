"""`drupe embed`: the embeddings of texts, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import drupe
from drupe.api import UsageError

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
    found = sys.stdin.read().splitlines() if texts == ["-"] else list(texts)
    if file is None:
        return found
    try:
        return found + file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file cannot be read as text: {error}", where=file, cure="--file PATH") from error
