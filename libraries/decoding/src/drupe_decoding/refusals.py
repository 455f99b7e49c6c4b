"""Errors that all sessions that write text raise, and their cures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from drupe.api import CheckFailed, UsageError, counted

if TYPE_CHECKING:
    from drupe_decoding.session import TextSession


class NoRoom(UsageError):
    """A prompt that leaves no room for an answer."""


def refuse_no_room(tokens: Sequence[int], session: TextSession) -> None:
    """Raise UsageError for a prompt without tokens, NoRoom for one that leaves no room for an answer."""
    if not tokens:
        raise UsageError("the prompt is empty", cure="give a text to continue")
    if session.max_length is not None and len(tokens) >= session.max_length:
        raise NoRoom(
            f"the prompt takes {counted(len(tokens), 'token')}, but there is room for {session.max_length}, "
            "prompt and answer "
            "together",
            cure=f"shorten the prompt{_more_room(session)}",
        )


def refuse_without_row(tokens: Sequence[int], rows: int | None, name: Callable[[int], str]) -> None:
    """Raise UsageError for a prompt with a token that has no row in the model's embedding.

    rows: how many the embedding has; None where that is not known. name: gives the text of a token.
    """
    if rows is None or max(tokens, default=0) < rows:
        return
    token = max(tokens)
    raise UsageError(
        f"the prompt has the token {name(token)} ({token}), which the tokenizer knows, but the model does not: its "
        f"embedding has {counted(rows, 'row')}",
        cure="leave it out of the prompt, or resize the checkpoint's embedding before converting it",
    )


def _more_room(session: TextSession) -> str:
    """The rest of the cure where there is too little room."""
    if session.max_length == session.context_length:
        return "; the model's context has no more room"
    most = f"; the model's context is {session.context_length} tokens" if session.context_length else ""
    return f", or raise --max-length (max_length=){most}"


def not_finite(tokens: int) -> CheckFailed:
    """The error of logits that are not finite, after so many tokens."""
    return CheckFailed(
        f"the model's logits are not finite after {counted(tokens, 'token')}",
        cure="check whether the source model computes finite numbers: very large weights overflow",
    )
