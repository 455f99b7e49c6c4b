"""The options that both commands have, and printing a text as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

Package = Annotated[str, typer.Argument(help="Folder that `drupe optimize` made.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; higher is more random.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest that sum to this.")]
TopK = Annotated[int, typer.Option(min=0, help="Sample from this many likeliest tokens; 0: all.")]
Seed = Annotated[int, typer.Option(help="Makes a sampled text repeatable.")]
Provider = Annotated[str | None, typer.Option(help="Run on this provider, not the one it was made for.")]
MaxLength = Annotated[int | None, typer.Option(min=2, help="Room for prompt and answer, in tokens.")]


def print_pieces(pieces: Iterable[str], said: list[str]) -> None:
    """Print a text piece by piece, and keep in `said` what was printed, so that it is there after an interruption.

    The line ends however the text does: what is said of an error begins a new one.
    """
    try:
        for piece in pieces:
            said.append(piece)
            print(piece, end="", flush=True)
    finally:
        print(flush=True)
