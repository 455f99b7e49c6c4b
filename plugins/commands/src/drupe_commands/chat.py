"""`drupe chat`: talk with a model through its own chat template."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

import drupe
from drupe.api import DrupeError, UsageError
from drupe_commands import interrupts
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
    from collections.abc import Iterator, Mapping

    from drupe_decoding import Generation, Message, TextSession

HINT = "Ctrl-C cuts an answer short, /reset starts anew, /exit or Ctrl-D ends."

FORGOTTEN = (
    "the conversation is longer than there is room for: the model no longer knows its beginning (/reset starts anew)"
)


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
    adapter: ActiveAdapter = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="What the chat template reads, such as '{\"enable_thinking\": false}'."),
    ] = None,
) -> None:
    """Talk with a package through its chat template. Ctrl-D or /exit ends, /reset starts anew.

    Where standard input is no terminal, each line is one thing said, and only the answers are printed.
    """
    from drupe_decoding import Message, text_session

    generation = generation_of(max_new_tokens, temperature, top_p, top_k, seed)
    opening = [Message("system", system)] if system else []
    settings = template_settings(chat_template_kwargs)
    with explained(package, provider), drupe.open(package, provider=provider, max_length=max_length) as session:
        writer = text_session(session)
        writer.use_adapter(adapter)
        talk = Talk(writer, generation, opening, sys.stdin.isatty(), settings)
        talk.run()


class Talk:
    """A conversation: asks for what the user says, prints what the model answers, keeps both.

    opening: what every conversation begins with. at_terminal: a person is typing; otherwise an error ends it.
    settings: what the chat template reads beside the messages.
    """

    def __init__(
        self,
        session: TextSession,
        generation: Generation,
        opening: list[Message],
        at_terminal: bool,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.session = session
        self.generation = generation
        self.opening = opening
        self.at_terminal = at_terminal
        self.settings = settings or {}
        self.turns = list(opening)

    def run(self) -> None:
        if self.at_terminal:
            _enable_editing()
            tell(HINT)
        while (said := self._ask()) is not None:
            if said == "/reset":
                self.turns = list(self.opening)
            elif said.startswith("/") and self.at_terminal:
                tell(f"there is no {said.split()[0]}. {HINT}")
            elif said:
                self.say(said)

    def say(self, said: str) -> None:
        """Say something and print the answer. A person sees an error and may go on, as if nothing had been said."""
        from drupe_decoding import Message

        before = list(self.turns)
        self.turns.append(Message("user", said))
        answer: list[str] = []
        try:
            print_pieces(self._stream(), answer)
            say_if_cut_short(self.session, self.generation)
        except KeyboardInterrupt:
            if not self.at_terminal:
                raise
            interrupts.answered()
        except DrupeError as error:
            if not self.at_terminal:
                raise
            tell(f"error: {error}")
            self.turns = before
            return
        self.turns.append(Message("assistant", "".join(answer)))

    def _stream(self) -> Iterator[str]:
        """The answer to all turns; where there is no room for them, the oldest are forgotten, two at a time."""
        from drupe_decoding import NoRoom

        forgotten = False
        while True:
            try:
                prompt = self.session.conversation(self.turns, **self.settings)
                pieces = self.session.stream(prompt, self.generation)
            except NoRoom:
                first = len(self.opening)
                if len(self.turns) <= first + 2:
                    raise
                del self.turns[first : first + 2]
                forgotten = True
            else:
                if forgotten:
                    tell(FORGOTTEN)
                return pieces

    def _ask(self) -> str | None:
        """What the user says next; None for the end. Ctrl-C forgets what is half typed."""
        while True:
            try:
                said = input("> " if self.at_terminal else "").strip()
            except EOFError:
                if self.at_terminal:
                    print()
                return None
            except KeyboardInterrupt:
                if not self.at_terminal:
                    raise
                interrupts.answered()
                print()
            else:
                return None if said in ("/exit", "/quit") else said


def template_settings(text: str | None) -> dict[str, Any]:
    """The object in the text of an option. Raises UsageError for another text."""
    try:
        settings = json.loads(text or "{}")
    except ValueError as error:
        raise UsageError(f"--chat-template-kwargs is not JSON: {error}") from error
    if not isinstance(settings, dict) or "messages" in settings:
        raise UsageError(
            "--chat-template-kwargs is not a JSON object of settings", cure='for example {"enable_thinking": false}'
        )
    return settings


def _enable_editing() -> None:
    """Arrow keys and history while typing, where the system has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it is what does it
