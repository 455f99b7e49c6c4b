"""`drupe generate` and `drupe chat`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import drupe
from drupe.errors import DrupeError

if TYPE_CHECKING:
    from drupe.runtime import Generation, Message, Session

Package = Annotated[str, typer.Argument(help="Folder that `drupe optimize` made.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; higher is more random.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest that sum to this.")]
TopK = Annotated[int, typer.Option(min=0, help="Sample from this many likeliest tokens; 0: all.")]
Seed = Annotated[int, typer.Option(help="Makes a sampled text repeatable.")]
Provider = Annotated[str | None, typer.Option(help="Run on this provider, not the one it was made for.")]
MaxLength = Annotated[int | None, typer.Option(min=2, help="Room for prompt and answer, in tokens.")]


def generate(
    package: Package,
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from standard input.")],
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    provider: Provider = None,
    max_length: MaxLength = None,
) -> None:
    """Continue a text with a package."""
    from drupe.runtime import Generation

    text = sys.stdin.read() if prompt == "-" else prompt
    generation = Generation(max_new_tokens, temperature, top_p, top_k, seed)
    with drupe.open(package, provider=provider, max_length=max_length) as session:
        print(text, end="", flush=True)
        _print_stream(session, text, generation)
        _print_timing(session)


def chat(
    package: Package,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    provider: Provider = None,
    max_length: MaxLength = None,
) -> None:
    """Talk with a package through its own chat template. Ctrl-D or /exit ends, /reset starts anew."""
    from drupe.runtime import Generation, Message

    opening = [Message("system", system)] if system else []
    turns = list(opening)
    with drupe.open(package, provider=provider, max_length=max_length) as session:
        while (said := _ask()) is not None:
            if said == "/reset":
                turns = list(opening)
            elif said:
                turns.append(Message("user", said))
                generation = Generation(max_new_tokens, temperature, top_p, top_k, seed)
                turns.append(Message("assistant", _answer(session, turns, generation)))


def _ask() -> str | None:
    """What the user says next; None for the end."""
    try:
        said = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if said in ("/exit", "/quit") else said


def _answer(session: Session, turns: list[Message], generation: Generation) -> str:
    """Print the answer as it comes; Ctrl-C cuts it short, a mistake is shown and the conversation goes on."""
    try:
        return _print_stream(session, session.conversation(turns), generation)
    except KeyboardInterrupt:
        print()
        return ""
    except DrupeError as error:
        if len([turn for turn in turns if turn.role == "user"]) == 1:
            raise
        print(f"error: {error}\n  /reset starts anew", file=sys.stderr)
        return ""


def _print_stream(session: Session, prompt: str, generation: Generation) -> str:
    pieces = []
    for piece in session.stream(prompt, generation):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print()
    return "".join(pieces)


def _print_timing(session: Session) -> None:
    if timing := session.timing:
        print(
            f"{timing.prompt_tokens} prompt tokens at {timing.prompt_rate:.0f} tok/s, "
            f"{timing.new_tokens} new ones at {timing.decode_rate:.0f} tok/s",
            file=sys.stderr,
        )
