"""`drupe generate`: continue a text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import drupe
from drupe_commands.explaining import explained, say_if_cut_short
from drupe_commands.messages import tell
from drupe_commands.parameters import (
    ActiveAdapter,
    MaxLength,
    MaxNewTokens,
    Package,
    Provider,
    Seed,
    Temperature,
    TopK,
    TopP,
    generation_of,
    print_pieces,
)

if TYPE_CHECKING:
    from drupe_decoding import Timing


def generate(
    package: Package,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text to continue; - reads it from standard input.")
    ],
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    provider: Provider = None,
    max_length: MaxLength = None,
    adapter: ActiveAdapter = None,
) -> None:
    """Continue a text with a package."""
    from drupe_decoding import text_session

    text = sys.stdin.read() if prompt == "-" else prompt
    generation = generation_of(max_new_tokens, temperature, top_p, top_k, seed)
    with explained(package, provider), drupe.open(package, provider=provider, max_length=max_length) as session:
        writer = text_session(session)
        writer.use_adapter(adapter)
        pieces = writer.stream(text, generation)
        print(text, end="", flush=True)
        print_pieces(pieces, [])
        say_if_cut_short(writer, generation)
        if writer.timing:
            tell(_rates(writer.timing))


def _rates(timing: Timing) -> str:
    text = f"{timing.prompt_tokens} prompt tokens at {timing.prompt_rate:,.0f} tok/s"
    if timing.decode_rate:
        text += f", {timing.new_tokens} new ones at {timing.decode_rate:,.0f} tok/s"
    return text
