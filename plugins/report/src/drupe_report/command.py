"""`drupe report`: a page about a package or a search, or the same numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from drupe.api import OutputError


def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="OUT|STUDY", help="A package, an adapter of drupe finetune, or the folder of a search (OUT.study)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="<file>", help="The page.  [default: OUT.html beside OUT]"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="<model>",
            help="The checkpoint that the package was made from. Layers and samples that were not measured yet are "
            "measured first, and kept in the package; that takes as long as several runs of the model.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, and write no page.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the page.")] = False,
) -> None:
    """Write one HTML page about a package, a search or a fine-tuning. It holds all that it shows, and loads nothing."""
    from drupe_report.reading import facts_of, refuse_other

    refuse_other(source)
    page = output or source.absolute().parent / f"{source.absolute().name}.html"
    if page.exists() and not (force or as_json):
        raise OutputError("the page exists", where=str(page), cure="--force replaces it, -o names another")
    if against is not None:
        from drupe_report.missing import measure_missing

        measure_missing(source, against)
    facts = facts_of(source)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    from drupe_files import disk_errors
    from drupe_report.page import page_of

    text = page_of(facts)
    with disk_errors(page):
        page.write_text(text, encoding="utf-8")
    print(page)
